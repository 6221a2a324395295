"""The daemon's options."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from sgpud.gpus.fake.file import FakeNode


@frozen
class Options:
    """What the command line says."""

    config: Path
    overrides: tuple[str, ...]
    fake_gpus: FakeNode | None
    state: Path
    run: Path
    strict: bool
    wait: bool
    watch_config: bool
