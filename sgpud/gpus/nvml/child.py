"""One run of the child process: started, read line by line on the reactor, killed, reaped."""

from __future__ import annotations

import math
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet import main
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from sgpud.bridge import Clock, Reactor, Timer
from sgpud.core.text import several
from sgpud.gpus.nvml.spawn import spawn

LONGEST_LINE = 1 << 20
"""Bytes of a message, at most: 16 GPUs with 7 MIG instances each take 40 000."""
LONGEST_LOG = 2000
"""Bytes of a line on standard error that are logged."""
MOST_LINES, PER = 20, 60.0
"""Lines on standard error that are logged, and in how many seconds."""
REPEAT_AFTER = 3600.0
"""Seconds until the same line is logged again."""
MOST_SEEN = 256
"""Lines that are remembered for that."""
REAP_WITHIN = 0.4
"""Seconds that a killed child has to exit: one that hangs in the kernel may stay forever."""
REAP_MOST = 30.0
"""The most seconds between two checks of a child that stays."""
_REAP_EVERY = 0.005
_CHUNK = 1 << 16
_DRAIN = 4


@implementer(IReadDescriptor)
class LineReceiver:
    """Reads a pipe on the reactor and passes on whole lines, each truncated to `longest` bytes."""

    def __init__(
        self,
        reactor: Reactor,
        fd: int,
        longest: int,
        on_line: Callable[[bytes], None],
        on_end: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._fd = fd
        self._longest = longest
        self._on_line = on_line
        self._on_end = on_end
        self._kept = bytearray()
        os.set_blocking(fd, False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """The descriptor; -1 once closed."""
        return self._fd

    def logPrefix(self) -> str:
        """The name in Twisted's own log lines."""
        return "sgpud-probe"

    def doRead(self) -> Any:
        """Read what is available; a returned exception tells the reactor that it has ended."""
        try:
            data = os.read(self._fd, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        self._received(data)
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The other side has closed; an incomplete line is dropped."""
        del reason
        if self._fd >= 0:
            self.close()
            self._on_end()

    def close(self) -> None:
        """Stop reading and passing lines on. The owner closes the descriptor."""
        if self._fd >= 0:
            self._reactor.removeReader(self)
            self._fd = -1

    def drain(self) -> None:
        """Pass on what is in the pipe already, in a bounded number of reads."""
        for _ in range(_DRAIN):
            if self._fd < 0 or self.doRead() is not None:
                return

    def _received(self, data: bytes) -> None:
        *ends, rest = data.split(b"\n")
        for piece in ends:
            self._keep(piece)
            line = bytes(self._kept)
            self._kept.clear()
            if self._fd >= 0:
                self._on_line(line)
        self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        self._kept += piece[: self._longest - len(self._kept)]


class StderrLog:
    """Logs what the NVML processes write to standard error, one after the other: a bounded part.

    NVML and the driver's libraries write what they like, as often as they like, and the same again
    with each new process.
    """

    _log = Logger()

    def __init__(self, clock: Clock) -> None:
        """Nothing was logged yet."""
        self._clock = clock
        self._summary = Timer(clock)
        self._seen: dict[str, float] = {}
        self._lines = 0
        self._since = 0.0
        self._left_out = 0

    def __call__(self, line: str) -> None:
        """Log a line, unless it was logged lately or there are too many."""
        now = self._clock.seconds()
        if now >= self._since + PER:
            self._since, self._lines = now, 0
        again = now < self._seen.get(line, -math.inf) + REPEAT_AFTER
        if again or self._lines >= MOST_LINES:
            self._left_out += 1
            self._summary.at_most(PER, self._summarize)
            return
        if len(self._seen) >= MOST_SEEN:
            self._seen.clear()
        self._seen[line] = now
        self._lines += 1
        self._log.warn("NVML process: {line}", line=line)

    def _summarize(self) -> None:
        left_out, self._left_out = self._left_out, 0
        self._log.warn(
            "NVML process: left out {lines} (repeated, or more than {most} in {per:.0f} s)",
            lines=several(left_out, "line"),
            count=left_out,
            most=MOST_LINES,
            per=PER,
        )


class Child:
    """A child process. `on_end` gets its exit status (negative: a signal) after its last line.

    Nothing waits for a killed child: `end` reports within REAP_WITHIN seconds if it has exited;
    one that hangs in the kernel is polled from time to time, so that it leaves no zombie.
    `on_error` gets the lines of its standard error.
    """

    def __init__(
        self,
        reactor: Reactor,
        process: subprocess.Popen[bytes],
        on_line: Callable[[bytes], None],
        on_end: Callable[[int | None], None],
        on_error: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._process = process
        self._on_end = on_end
        self._on_error = on_error
        stdout, stderr = process.stdout, process.stderr
        if stdout is None or stderr is None:
            reason = "the child process needs pipes"
            raise ValueError(reason)
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
        self._output = LineReceiver(reactor, stdout.fileno(), LONGEST_LINE, on_line, self._ended)
        self._errors = LineReceiver(
            reactor, stderr.fileno(), LONGEST_LOG, self._logged, lambda: None
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def send(self, line: bytes) -> None:
        """Write a line to its standard input; if the pipe is full, the line is dropped."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            with suppress(OSError):
                pipe.write(line)

    def end(self) -> Deferred[bool]:
        """Kill it; no callback is called any more. The result: whether it has exited."""
        self._output.close()
        self._errors.close()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        gone: Deferred[bool] = Deferred()
        self._reap(gone, 0.0)
        return gone

    def _reap(self, gone: Deferred[bool], waited: float) -> None:
        reaped = self._process.poll() is not None
        if not gone.called and (reaped or waited >= REAP_WITHIN):
            gone.callback(reaped)
        if not reaped:
            pause = min(waited, REAP_MOST) if gone.called else _REAP_EVERY
            self._reactor.callLater(pause, self._reap, gone, waited + pause)

    def _ended(self) -> None:
        # Its last lines on standard error say why it ended.
        self._errors.drain()
        self.end().addCallback(lambda _gone: self._on_end(self._process.returncode))

    def _logged(self, line: bytes) -> None:
        self._on_error(line.decode("utf-8", "replace").rstrip())


def start_child(
    reactor: Reactor,
    options: Sequence[str],
    on_line: Callable[[bytes], None],
    on_end: Callable[[int | None], None],
    env: Mapping[str, str] | None = None,
    on_error: Callable[[str], None] | None = None,
) -> Child:
    """Start the child process with these options, in the reactor thread; OSError if that fails."""
    process = spawn(options, env)
    return Child(reactor, process, on_line, on_end, on_error or StderrLog(reactor))


class Starter:
    """Starts one child after the other; the first may have been started while sgpud imported."""

    def __init__(self, reactor: Reactor, first: subprocess.Popen[bytes] | None = None) -> None:
        """`first` was started without options."""
        self._reactor = reactor
        self._first = first
        self._errors = StderrLog(reactor)

    def __call__(
        self,
        options: Sequence[str],
        on_line: Callable[[bytes], None],
        on_end: Callable[[int | None], None],
    ) -> Child:
        """The first, told its options, or a new one; OSError if that cannot be started."""
        first, self._first = self._first, None
        if first is None:
            return start_child(self._reactor, options, on_line, on_end, on_error=self._errors)
        child = Child(self._reactor, first, on_line, on_end, self._errors)
        for name, value in zip(options[::2], options[1::2], strict=True):
            child.send(f"{name[2:]} {value}\n".encode())
        return child
