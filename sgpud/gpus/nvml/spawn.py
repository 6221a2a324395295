"""Starts the process that reads the GPUs; standard library only, to be early in a start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_BOOT = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n');"
    " from sgpud.gpus.nvml.probe.main import main; main(sys.argv[1:])"
)


def spawn(
    options: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start it with these options; OSError if that fails.

    It finds the same modules as this process, wherever they are installed, and nothing else:
    -I and -S exclude the environment, the current folder and site's .pth files. Call it in the
    thread of the reactor: the kernel ends the child when the thread that started it ends.
    subprocess runs no Python between fork and exec, so it is safe beside gRPC's threads.
    """
    # And sgpud's own folder: an editable installation is found by a hook, not by a path.
    folders = [*sys.path, str(Path(__file__).parents[3])]
    paths = "\n".join(str(Path(folder).absolute()) for folder in folders)
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BOOT, paths, "--parent", str(os.getpid()), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=env,
        close_fds=True,
    )


def spawn_early() -> subprocess.Popen[bytes] | None:
    """Start it with no options, while this process still imports; None if that fails.

    The monitor starts it again then, and says why it cannot.
    """
    try:
        return spawn()
    except OSError:
        return None
