"""The child process that talks to NVML, so that nothing NVML does can stop the daemon.

A call into NVML can hang in the kernel for ever, or take the process down. This process holds no
lock, no socket and no state of the daemon's: the parent kills it and starts another. What it says
is in protocol.py. It imports pynvml and the standard library only, and little of that.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading

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
    Not argparse: it costs a megabyte here, and only the daemon writes this command line.
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
    """Where the messages go, each as one whole line, whichever thread says it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def say(self, message: str, **fields: object) -> None:
        """Write one message; without a reader there is nothing left to do."""
        line = json.dumps({"type": message, **fields}).encode() + b"\n"
        try:
            with self._lock:
                os.write(self._fd, line)
        except OSError:
            os._exit(0)


def _die_with(parent: int) -> None:
    """Have the kernel end this process with its parent, and end it if that is gone already."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_NAME, b"sgpud-probe", 0, 0, 0)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:
        os._exit(0)


def _listen(rounds: ProbeLoop) -> None:
    """Take what the parent says; at the end of it end, whatever hangs in the other threads."""
    try:
        kept = b""
        while said := os.read(0, 4096):
            *lines, kept = (kept + said).split(b"\n")
            for line in lines:
                word, _, value = line.partition(b" ")
                if word == b"measure-every":
                    rounds.measure_every(float(value))
    finally:
        os._exit(0)


def main(argv: Sequence[str]) -> NoReturn:
    """Run the child process; never returns."""
    options = ProbeOptions(argv)
    _die_with(options.parent)
    # The parent ends this process; a signal to the whole group must not look like a crash.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # What the library prints must not get between the messages.
    output = MessageWriter(os.dup(1))
    os.dup2(2, 1)
    try:
        import pynvml  # noqa: PLC0415 - its absence is a fault to report, not a crash
    except ImportError as error:
        output.say("fault", kind="unknown", detail=f"pynvml cannot be imported: {error}")
        os._exit(STATUS["unknown"])
    rounds = ProbeLoop(pynvml, options, output.say)
    threading.Thread(target=_listen, args=(rounds,), name="parent", daemon=True).start()
    rounds.run()


if __name__ == "__main__":
    main(sys.argv[1:])
