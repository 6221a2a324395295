"""Keeps what is known of the holders true.

The checkpoint is the record; the kubelet writes it after an Allocate, on a list message, or when a
resource goes, and frees a finished pod's shares only when it is asked. So the refresh that is true
is: ask podresources, then, only if the file still holds ids that the answer lacks, send the list
once more (the kubelet writes the file), then read the file. podresources also knows the names of
the pods, which the file does not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock, OneAtATime
from sgpud.core.planning.holdings import CheckpointState, NamedPod, ids, names, with_names
from sgpud.kubelet.checkpoint import CheckpointError, read
from sgpud.kubelet.outgoing import why

WHILE_WAITING = 5.0
"""Seconds between refreshes while something waits for a release."""
OTHERWISE = 60.0
"""Seconds between refreshes else."""
LOOKS_APART = 1.0
"""Seconds between two refreshes at least: refused pods are made again at once."""
READ_APART = 0.2
"""Seconds between two reads of the file at least: a burst of allocations rewrites it each time."""


class PodLister(Protocol):
    """The kubelet's podresources service."""

    @property
    def reachable(self) -> bool:
        """Whether it can be asked."""

    def held(self) -> Deferred[tuple[NamedPod, ...]]:
        """The pods that hold shares, and which."""


@frozen
class HoldersObserver:
    """What the holders are told and tell."""

    learned: Callable[[CheckpointState], None]
    """Called with the books whenever they were read, and when podresources told something new."""
    waiting: Callable[[], bool]
    """Whether something waits for a release."""
    nudge: Callable[[], None]
    """Have the lists sent once more."""
    unconfirmed: Callable[[], bool] = bool
    """Whether a grant waits for the kubelet to write its books; never, where nobody says."""


class HolderTracker:
    """Reads the checkpoint when it changes, and has it refreshed."""

    _log = Logger()

    def __init__(
        self,
        path: Path,
        reactor: Clock,
        lists: PodLister,
        wiring: HoldersObserver,
        work: Callable[[Callable[[], CheckpointState]], Deferred[CheckpointState]] = execute,
    ) -> None:
        """`path` is the checkpoint; `work` runs what would block the reactor, in a thread."""
        self._path = path
        self._work = work
        self._reads = OneAtATime(self._read)
        self._begun = 0
        self._reactor = reactor
        self._lists = lists
        self._wiring = wiring
        self._checkpoint: CheckpointState | None = None
        self._last_read = float("-inf")
        self._last_refresh = 0.0
        self._taking_over = False
        self._reading: IDelayedCall | None = None
        self._refreshing: IDelayedCall | None = None
        self._asking: Deferred[tuple[NamedPod, ...]] | None = None
        self._nudged_for: tuple[frozenset[str], frozenset[str]] | None = None
        self._names: dict[str, tuple[str, str]] = {}
        self._asked_for: frozenset[str] = frozenset()
        self._wanted = False
        self._doubt = ""

    def start(self) -> None:
        """Read, unless that was done already, and refresh from now on."""
        if self._checkpoint is None:
            self.read()
        self._last_refresh = self._reactor.seconds()
        self._refreshing = self._reactor.callLater(WHILE_WAITING, self._tick)

    def stop(self) -> None:
        """Ask and read no more."""
        self._reads.stop()
        self._begun += 1
        for call in (self._reading, self._refreshing):
            if call is not None and call.active():
                call.cancel()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    @property
    def alive(self) -> bool:
        """Whether it looks again."""
        return self._refreshing is not None and self._refreshing.active()

    def changed(self) -> None:
        """The checkpoint may have changed: read it, at once or in a moment."""
        if self._reading is None or not self._reading.active():
            wait = max(0.0, self._last_read + READ_APART - self._reactor.seconds())
            self._reading = self._reactor.callLater(wait, self.read)

    def look(self) -> None:
        """Refresh soon: who holds what is not what it was."""
        due = max(0.0, self._last_refresh + LOOKS_APART - self._reactor.seconds())
        waits = self._refreshing
        if waits is not None and waits.active() and waits.getTime() > self._reactor.seconds() + due:
            waits.reset(due)
            self._wanted = True

    def take_over(self) -> None:
        """Read, and tell also which ids the kubelet knew before this process lists any.

        Where the file cannot be read now, the first read that succeeds tells it. This once in the
        reactor's own thread: nothing is served yet that could wait, and everything waits for it.
        """
        self._taking_over = True
        execute(self._begin()).addBoth(self._has_read, self._begun)

    def read(self) -> None:
        """Read the checkpoint and tell what it says; when it cannot be read, what was known."""
        self._reads.request()

    def _read(self) -> Deferred[None]:
        return self._work(self._begin()).addBoth(self._has_read, self._begun)

    def _begin(self) -> Callable[[], CheckpointState]:
        self._begun += 1
        self._last_read = self._reactor.seconds()
        return partial(read, self._path, registered=self._taking_over)

    def _has_read(self, result: CheckpointState | Failure, begun: int) -> None:
        if begun != self._begun:
            return  # a later reading has begun meanwhile, or all is over
        if isinstance(result, Failure):
            problem = result.value
            if not isinstance(problem, CheckpointError):
                result.raiseException()
            known = self._checkpoint or CheckpointState()
            if known.problem != str(problem):
                self._log.error(
                    "The kubelet's checkpoint cannot be read: {problem}. The holders known last "
                    "stay, and no share leaves the list until it can be read",
                    problem=problem,
                )
            checkpoint = evolve(known, problem=str(problem))
        else:
            checkpoint = result
            self._taking_over = False
        if self._checkpoint is not None and self._checkpoint.problem and not checkpoint.problem:
            self._log.info("The kubelet's checkpoint can be read again")
        self._checkpoint = checkpoint
        self._tell()

    def _tick(self) -> None:
        self._refreshing = self._reactor.callLater(WHILE_WAITING, self._tick)
        due = self._wanted or self._reactor.seconds() >= self._last_refresh + OTHERWISE
        new = bool(self._unnamed - self._asked_for)
        if (due or new or self._wiring.waiting()) and self._asking is None:
            self._refresh()

    @property
    def _unnamed(self) -> frozenset[str]:
        """The pods whose name nobody has told yet; that of one init container nobody ever tells."""
        holders = self._checkpoint.holders if self._checkpoint else ()
        return frozenset(holder.pod for holder in holders) - self._names.keys()

    def _refresh(self) -> None:
        self._wanted = False
        self._last_refresh = self._reactor.seconds()
        self._asked_for = self._unnamed
        if not self._lists.reachable:
            self._doubted("its socket is not there")
            self._confirm()
            return
        self._asking = self._lists.held()

        def done(result: tuple[NamedPod, ...] | Failure) -> None:
            if self._asking is None:
                return  # stopped
            self._asking = None
            if isinstance(result, Failure):
                self._doubted(why(result.value))
            else:
                self._named(result)

        self._asking.addBoth(done)

    def _doubted(self, problem: str) -> None:
        """Without podresources there is no bound for how late a pod's end is seen."""
        if not self._doubt:
            self._log.warn(
                "podresources cannot be asked: {problem}. The holders may be stale: it is noticed "
                "late that a pod has ended",
                problem=problem,
            )
        doubt = f"may be stale: podresources cannot be asked ({problem})"
        if doubt != self._doubt:
            self._doubt = doubt
            self._tell()

    def _named(self, named: tuple[NamedPod, ...]) -> None:
        checkpoint = self._checkpoint or CheckpointState()
        pods = {holder.pod for holder in checkpoint.holders}
        known = {**self._names, **names(checkpoint, named)}
        known = {pod: name for pod, name in known.items() if pod in pods}
        if (known, "") != (self._names, self._doubt):
            self._names, self._doubt = known, ""
            self._tell()
        self._compare(frozenset(one for entry in named for one in entry.ids))

    def _tell(self) -> None:
        if self._checkpoint is not None:
            self._wiring.learned(
                evolve(with_names(self._checkpoint, self._names), doubt=self._doubt)
            )

    def _compare(self, listed: frozenset[str]) -> None:
        """Nudge when the file holds what the kubelet may have freed meanwhile.

        An ordinary init container stands in the file and never in the answer: the same difference
        twice is no reason for a second nudge.
        """
        checkpoint = self._checkpoint or CheckpointState()
        recorded = frozenset(one for holder in checkpoint.holders for one in ids(holder.shares))
        difference = (recorded - listed, listed)
        if recorded - listed and difference != self._nudged_for:
            self._nudged_for = difference
            self._wiring.nudge()
        else:
            self._confirm()

    def _confirm(self) -> None:
        """Nudge when the file is older than a grant that it does not name.

        That of a pod that ended at once, or that failed after our answer: nothing else makes the
        kubelet write, and until it does the shares count as held.
        """
        if self._wiring.unconfirmed():
            self._wiring.nudge()
