"""Turns this process into the helper; standard library only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

_BOOT = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n');"
    " from sgpud.limits.helper.main import main; main(sys.argv[1:])"
)


def command(run: str, state: str, root: str) -> list[str]:
    """The helper's command line: run directory, state directory, and where cgroup v2 is.

    It finds the same modules as this process: -I and -S exclude the environment, the current folder
    and site's .pth files.
    """
    folders = [*sys.path, str(Path(__file__).parents[2])]
    paths = "\n".join(str(Path(folder).absolute()) for folder in folders)
    return [sys.executable, "-I", "-S", "-c", _BOOT, paths, run, state, root]


def become_helper(run: str, state: str, root: str) -> NoReturn:
    """Run the helper in this process's place: what the command line needed is gone from memory."""
    words = command(run, state, root)
    os.execv(words[0], words)  # noqa: S606 - there is nothing of a shell's in it
