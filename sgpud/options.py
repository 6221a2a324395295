"""The daemon's options."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
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
    force: bool
    probe: subprocess.Popen[bytes] | None = None
    """The process that reads the GPUs, if it was started already."""


def overrides(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The configuration keys that the command line overrides."""
    directory = arguments.plugin_dir
    quoted = directory.replace("\\", "\\\\").replace('"', '\\"') if directory else ""
    plugin_directory = (f'kubelet.plugin_directory="{quoted}"',) if directory else ()
    return (*arguments.set, *plugin_directory)
