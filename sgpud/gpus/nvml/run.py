"""One run of the child process: its messages, its deadlines, its end."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from sgpud.bridge import Reactor, Timer
from sgpud.gpus.nvml.faults import GpuFault, GpuFaultKind
from sgpud.gpus.nvml.messages import (
    CallsEnded,
    CallStarted,
    EventMessage,
    Facts,
    Inventory,
    MessageError,
    parse,
)
from sgpud.gpus.nvml.probe.protocol import HOT_PLUGGED, PERIOD

_GONE = True
Took = tuple[tuple[str, int, float], ...]
"""Calls, how often each was made, and how many seconds it took."""


@frozen
class ProbeTimeouts:
    """Time limits, in seconds."""

    first: float = 30.0
    """A step of the first reading: without persistence mode, NVML then initialises each GPU, which
    takes seconds, more for large ones. Per step, as there can be 16 GPUs."""
    call: float = 10.0
    """A step of a later reading: milliseconds for a healthy GPU."""
    steady: float = 30.0
    """How long a run must last for its end to count as an isolated failure."""
    suspect: float = 300.0
    """How long a GPU is left out after a call to it hung."""


class ChildProcess(Protocol):
    """A child process that was started."""

    def end(self) -> Deferred[bool]:
        """Kill it and call no callback any more; whether it has exited, within half a second."""

    def send(self, line: bytes) -> None:
        """Write a line to its standard input; dropped if it does not read."""


Start = Callable[
    [Sequence[str], Callable[[bytes], None], Callable[["int | None"], None]], ChildProcess
]
"""Starts a child: options, callback for lines, callback for the exit status. OSError."""


class ProbeRun:
    """A child from its start to its end. `on_over` is called once, unless `end` was.

    It gets why the run is over; None means that the child asks for a restart.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        patience: ProbeTimeouts,
        on_message: Callable[[Facts], None],
        on_over: Callable[[GpuFault | None], None],
        on_took: Callable[[Took], None] = lambda _: None,
    ) -> None:
        """`on_took` gets how long the child's calls took."""
        self._reactor = reactor
        self._patience = patience
        self._on_message = on_message
        self._on_over = on_over
        self._on_took = on_took
        self._deadline = Timer(reactor)
        self._process: ChildProcess | None = None
        self._step: CallStarted | None = None
        self._fault: GpuFault | None = None
        self._garbage = 0
        self._over = False
        self._since = reactor.seconds()
        self.answered = False
        """Whether an inventory was received."""

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return self._reactor.seconds() - self._since

    @property
    def suspect(self) -> CallStarted | None:
        """The current step, if it concerns a single GPU."""
        return self._step if self._step and self._step.gpu else None

    def start(self, start: Start, options: Sequence[str]) -> None:
        """Start the child; OSError if that fails."""
        self._process = start(options, self._line, self._ended)
        self._deadline.set(self._patience.first, self._overdue)

    def send(self, line: str) -> None:
        """Send a line to the child."""
        if self._process is not None:
            self._process.send(line.encode() + b"\n")

    def end(self) -> Deferred[bool]:
        """Kill the child and call no callback any more; whether it has exited in half a second."""
        self._over = True
        self._deadline.cancel()
        return self._process.end() if self._process else succeed(_GONE)

    def _line(self, line: bytes) -> None:
        if self._over:
            return
        try:
            message = parse(line)
        except MessageError as error:
            self._garbage += 1
            if self._garbage == 1:
                self._log.warn("NVML process: ignoring an invalid message: {error}", error=error)
            return
        limit = self._patience.call if self.answered else self._patience.first
        if isinstance(message, CallStarted):
            self._step = message
        elif isinstance(message, CallsEnded):
            self._step = None
            self._on_took(message.took)
            limit = PERIOD + self._patience.call
        elif isinstance(message, GpuFault):
            self._fault = message
        elif isinstance(message, EventMessage):
            # From the event thread: it does not show that the reading thread makes progress.
            self._on_message(message)
            return
        else:
            self.answered = self.answered or isinstance(message, Inventory)
            self._on_message(message)
        if not self._over:
            self._deadline.set(limit, self._overdue)

    def _overdue(self) -> None:
        step = self._step or CallStarted("the start of the process")
        detail = f"{step.call} did not return in time, killing the process"
        self._finish(self._fault or GpuFault(GpuFaultKind.HUNG, detail, step.gpu))

    def _ended(self, status: int | None) -> None:
        if status == HOT_PLUGGED:
            self._finish(None)
        else:
            at = f" during {self._step.call}" if self._step else ""
            gpu = self._step.gpu if self._step else ""
            died = GpuFault(
                GpuFaultKind.DIED, f"the NVML process ended{at}: {_ending(status)}", gpu
            )
            self._finish(self._fault or died)

    def _finish(self, fault: GpuFault | None) -> None:
        if not self._over:
            self.end()
            self._on_over(fault)


def _ending(status: int | None) -> str:
    if status is None:
        return "it closed its output but did not exit"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
