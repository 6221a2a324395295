"""What a run of the daemon is given: what the command line says, and the reactor."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from attrs import frozen

from sgpud.bridge import Readers, Threads
from sgpud.gpus.simulation import Simulation


@frozen
class Options:
    """What the command line says about a run."""

    config: Path
    overrides: tuple[str, ...]
    simulation: Simulation | None
    state: Path
    run: Path
    strict: bool
    wait: bool
    watch_config: bool


class Reactor(Threads, Readers, Protocol):
    """What is used of Twisted's reactor."""

    def stop(self) -> None:
        """End the daemon."""
