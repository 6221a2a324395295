"""The child process that talks to NVML, so that nothing NVML does can stop the daemon.

A call into NVML can hang in the kernel forever, or crash the process. This process holds no lock,
no socket and no state of the daemon: the parent kills it and starts another. Its messages are in
protocol.py. It imports pynvml and the standard library only, and little of that.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from types import ModuleType

from sgpud.gpus.nvml.probe.loop import ProbeLoop
from sgpud.gpus.nvml.probe.protocol import MEASURE_EVERY, PERIOD, STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


class ProbeOptions:
    """The command line.

    `--leave-out UUID-or-index`, `--measure-every S`, `--parent PID`, `--period S`, `--root DIR`.
    Not argparse: it costs a megabyte, and only the daemon writes this command line.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self.leave_out: set[str] = set()
        self.measure_every = MEASURE_EVERY
        self.parent = 0
        self.period = PERIOD
        self.root = "/"
        for name, value in zip(argv[::2], argv[1::2], strict=True):
            if name == "--leave-out":
                self.leave_out.add(value)
            elif name == "--measure-every":
                self.measure_every = float(value)
            elif name == "--parent":
                self.parent = int(value)
            elif name == "--period":
                self.period = float(value)
            elif name == "--root":
                self.root = value


class MessageWriter:
    """Writes messages, each as one whole line, from any thread."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def send(self, message: str, **fields: object) -> None:
        """Write one message; without a reader, exit."""
        line = json.dumps({"type": message, **fields}).encode() + b"\n"
        try:
            with self._lock:
                os.write(self._fd, line)
        except OSError:
            os._exit(0)


def _find_library(name: str) -> str | None:
    """The real one, of ctypes.util."""
    del sys.modules["ctypes.util"]
    from ctypes.util import find_library  # noqa: PLC0415 - as below

    return find_library(name)


def _leave_out_util() -> None:
    """Have pynvml import a find_library that imports the real one when it is called.

    It is called on Windows only, and ctypes.util imports what runs a compiler: an eighth of this
    process.
    """
    util = ModuleType("ctypes.util")
    vars(util).update(find_library=_find_library)
    sys.modules.setdefault("ctypes.util", util)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process with its parent, and exit if the parent is gone already."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_NAME, b"sgpud-probe", 0, 0, 0)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(0)


def _listen(loop: ProbeLoop) -> None:
    """Read the parent's commands; exit at the end of the input, whatever hangs in other threads."""
    try:
        kept = b""
        while data := os.read(0, 4096):
            *lines, kept = (kept + data).split(b"\n")
            for line in lines:
                word, _, value = line.partition(b" ")
                if word == b"measure-every":
                    loop.measure_every(float(value))
    finally:
        os._exit(0)


def main(argv: Sequence[str]) -> NoReturn:
    """Run the child process; never returns."""
    options = ProbeOptions(argv)
    _die_with(options.parent)
    # The parent ends this process: a signal to the whole group must not look like a crash.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # What the library prints must not be mixed with the messages.
    output = MessageWriter(os.dup(1))
    os.dup2(2, 1)
    _leave_out_util()
    try:
        import pynvml  # noqa: PLC0415 - its absence is a fault to report, not a crash
    except ImportError as error:
        output.send("fault", kind="unknown", detail=f"cannot import pynvml: {error}")
        os._exit(STATUS["unknown"])
    loop = ProbeLoop(pynvml, options, output.send)
    threading.Thread(target=_listen, args=(loop,), name="parent", daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1:])
