"""What a run of the daemon is given: what the command line says, and the reactor."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from sgpud.gpus.fake.file import FakeNode


@frozen
class Options:
    """What the command line says about a run."""

    config: Path
    overrides: tuple[str, ...]
    simulation: FakeNode | None
    state: Path
    run: Path
    strict: bool
    wait: bool
    watch_config: bool
