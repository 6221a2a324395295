"""Keeps the processes on the GPUs, and the containers they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Reactor, in_thread
from sgpud.core.gpu.observations import GpuProcesses, Usage
from sgpud.gpus.process_locator import LocatedProcesses


class UsageWatch:
    """Looks up the processes of each sample in a thread, and keeps the latest result.

    One lookup at a time: if /proc hangs, it blocks only one thread, and the age of the result shows
    that it is out of date.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        look: Callable[[Iterable[int]], LocatedProcesses],
        found: Callable[[Usage], None] = lambda _: None,
    ) -> None:
        """`look` blocks; `found` gets each result."""
        self._reactor = reactor
        self._look = look
        self._report = found
        self._looking = False
        self._problem = ""
        self.latest: Usage | None = None
        """The latest result; None before the first sample."""

    def sampled(self, running: Sequence[GpuProcesses]) -> None:
        """NVML has just reported these processes."""
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
                    "Cannot attribute GPU usage to containers: {problem}",
                    problem=found.problem,
                )
        self._report(self.latest)

    def _failed(self, failure: Failure) -> None:
        self._looking = False
        self._log.failure("Looking up the processes on the GPUs failed", failure)
