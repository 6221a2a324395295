"""Keeps what is known of the processes on the GPUs, and of where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Reactor, in_thread
from sgpud.core.gpu.observations import GpuProcesses, Usage
from sgpud.gpus.process_locator import LocatedProcesses


class UsageWatch:
    """Has the processes of each sample looked up in a thread; the latest result is at hand.

    While one look is not done no other is begun: what hangs in /proc holds one thread, and what is
    known grows old, which its age shows.
    """

    _log = Logger()

    def __init__(self, reactor: Reactor, look: Callable[[Iterable[int]], LocatedProcesses]) -> None:
        """`look` blocks."""
        self._reactor = reactor
        self._look = look
        self._looking = False
        self._problem = ""
        self.latest: Usage | None = None
        """What is known; None before the first sample."""

    def sampled(self, running: Sequence[GpuProcesses]) -> None:
        """NVML has told which processes there are, just now."""
        if self._looking:
            return
        self._looking = True
        at = self._reactor.seconds()
        pids = dict.fromkeys(process.pid for each in running for process in each.processes)
        in_thread(self._reactor, lambda: self._look(pids)).addCallbacks(
            lambda found: self._found(at, running, found), self._failed
        )

    def _found(self, at: float, running: Sequence[GpuProcesses], found: LocatedProcesses) -> None:
        self._looking = False
        by_uuid = {each.uuid: each for each in running}
        self.latest = Usage(at, by_uuid, found.places, found.problem)
        if found.problem != self._problem:
            self._problem = found.problem
            if found.problem:
                self._log.warn(
                    "It cannot be told which containers use how much of the GPUs: {problem}",
                    problem=found.problem,
                )

    def _failed(self, failure: Failure) -> None:
        self._looking = False
        self._log.failure("Looking for the places of processes failed", failure)
