"""Keeps the known holders up to date.

The checkpoint is the record; the kubelet writes it after an Allocate, on a list message, or when a
resource goes, and frees a finished pod's shares only when it is asked. So the refresh that is true
is: ask podresources, then, only if the file still holds ids that the answer lacks, send the list
once more (the kubelet writes the file), then read the file. podresources also knows the names of
the pods, which the file does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, execute
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock, OneAtATime, Timer
from sgpud.core.planning.holdings import CheckpointState, NamedPod, ids, names, with_names
from sgpud.kubelet.checkpoint import CheckpointError, read
from sgpud.kubelet.outgoing import why

WHILE_HELD = 1.0
"""Seconds between refreshes while shares are held, or something waits for a release: the kubelet
gives a finished pod's shares to the next one before anybody else can know of its end."""
OTHERWISE = 60.0
"""Seconds between refreshes else, and at most, while podresources refuses."""
HINTED = 0.2
"""Seconds between two refreshes at least, whatever hints there are."""
DUTY = 20.0
"""An answer that took long is asked for this many times more seldom."""
CONFIRM_EVERY = 5.0
"""Seconds between two lists that are sent to have grants confirmed: each writes the checkpoint."""
UNREACHABLE = 5.0
"""Seconds between two looks for a podresources socket that is not there."""
READ_APART = 0.2
"""Seconds between two reads of the file at least: a burst of allocations rewrites it each time."""
SOON = 0.05
"""Seconds between two refreshes, and two reads, while a pod is known to have ended."""
SOON_FOR = 2.0
"""Seconds for which that lasts: a pod that was deleted by force may run on for long."""
SOON_DUTY = 4.0
"""As DUTY, meanwhile."""


class PodLister(Protocol):
    """The kubelet's podresources service."""

    @property
    def reachable(self) -> bool:
        """Whether it can be asked."""

    def held(self) -> Deferred[tuple[NamedPod, ...]]:
        """The pods that hold shares, and which."""


@frozen
class HoldersObserver:
    """Callbacks of the holder tracker."""

    on_checkpoint: Callable[[CheckpointState], None]
    """Called with the checkpoint whenever it was read, and when podresources had news."""
    waiting: Callable[[], bool]
    """Whether something waits for shares to be freed."""
    resend_lists: Callable[[], None]
    """Send the lists once more, so that the kubelet rewrites its checkpoint."""
    unconfirmed: Callable[[], bool] = bool
    """Whether a grant waits for the kubelet to write its checkpoint; by default never."""


class HolderTracker:
    """Reads the checkpoint when it changes, and has it refreshed."""

    _log = Logger()

    def __init__(
        self,
        path: Path,
        reactor: Clock,
        lists: PodLister,
        observer: HoldersObserver,
        work: Callable[[Callable[[], CheckpointState]], Deferred[CheckpointState]] = execute,
    ) -> None:
        """`path` is the checkpoint; `work` runs what would block the reactor, in a thread."""
        self._path = path
        self._work = work
        self._reads = OneAtATime(self._read)
        self._begun = 0
        self._reactor = reactor
        self._lists = lists
        self._observer = observer
        self._checkpoint: CheckpointState | None = None
        self._last_read = float("-inf")
        self._last_refresh = 0.0
        self._taking_over = False
        self._reading, self._refreshing, self._hinting = (Timer(reactor) for _ in range(3))
        self._asking: Deferred[tuple[NamedPod, ...]] | None = None
        self._resent_for: tuple[frozenset[str], frozenset[str]] | None = None
        self._resend_after = self._resend_at = 0.0
        """The back-off in seconds before resending for the same difference, and when it is due."""
        self._names: dict[str, tuple[str, str]] = {}
        self._told_names: Mapping[str, tuple[str, str]] = {}
        """By the API server, where it is asked: of all pods of the node."""
        self._listed: frozenset[str] | None = None
        """The pods that podresources listed last."""
        self._ended: dict[str, float] = {}
        """Until when the end of a pod that has ended is looked for."""
        self._took = 0.0
        """Seconds that the last answer of podresources took."""
        self._asked_for: frozenset[str] = frozenset()
        self._doubt = ""
        self._failures = 0
        self._not_before = float("-inf")
        """When the kubelet is asked again at the earliest."""
        self._confirmed = float("-inf")
        self._fresh_kubelet = True
        """Whether the kubelet may have started without a checkpoint, and holds nothing then."""

    def start(self) -> None:
        """Read, unless that was done already, and refresh from now on."""
        if self._checkpoint is None:
            self.read()
        self._last_refresh = self._reactor.seconds()
        self._refreshing.set(WHILE_HELD, self._tick)

    def stop(self) -> None:
        """Ask and read no more."""
        self._reads.stop()
        self._begun += 1
        for timer in (self._reading, self._refreshing, self._hinting):
            timer.cancel()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    @property
    def alive(self) -> bool:
        """Whether it looks again."""
        return self._refreshing.active

    def changed(self) -> None:
        """The checkpoint may have changed: read it, at once or in a moment."""
        if not self._reading.active:
            apart = SOON if self._ended else READ_APART
            wait = max(0.0, self._last_read + apart - self._reactor.seconds())
            self._reading.set(wait, self.read)

    def kubelet_started(self) -> None:
        """A kubelet has started: where it has no checkpoint, nothing is held."""
        self._fresh_kubelet = True
        self.changed()

    def look(self) -> None:
        """Refresh soon: a pod may have ended or started, who holds what is not what it was."""
        now = self._reactor.seconds()
        soonest = max(now, self._last_refresh + HINTED, self._not_before, self._rested(DUTY))
        self._hinting.at_most(soonest - now, self._hinted)

    def pods_named(self, names: Mapping[str, tuple[str, str]]) -> None:
        """The namespaces and names of this node's pods by UID, as the API server has them."""
        self._told_names = names
        if self._remember():
            self._tell()

    def pods_ended(self, pods: Iterable[str]) -> None:
        """These pods have ended or were deleted, says the API server: have the kubelet free them.

        What it says then counts: a pod that was deleted by force may still run.
        """
        until = self._reactor.seconds() + SOON_FOR
        self._ended.update(dict.fromkeys(self._holding & frozenset(pods), until))
        self._look_for_ends()

    def _look_for_ends(self) -> None:
        """Refresh at once, and again, while a pod that has ended still holds shares."""
        now = self._reactor.seconds()
        held = self._holding
        self._ended = {
            pod: until for pod, until in self._ended.items() if pod in held and now < until
        }
        if self._ended:
            rested = self._rested(SOON_DUTY)
            soonest = max(now, self._last_refresh + SOON, self._not_before, rested)
            self._hinting.at_most(soonest - now, self._hinted)

    def _rested(self, duty: float) -> float:
        """When the kubelet may be asked again, for its last answer took its time."""
        return self._last_refresh + (duty + 1) * self._took

    def _hinted(self) -> None:
        if self._asking is None and self.alive and self._waited_for:
            self._refresh()

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
            checkpoint = self._doubtful(str(problem))
        elif self._is_lost(result):
            checkpoint = self._removed()
        else:
            checkpoint = result
            self._taking_over = False
            self._fresh_kubelet = self._fresh_kubelet and not result.written
        if self._checkpoint is not None and self._checkpoint.problem and not checkpoint.problem:
            self._log.info("The kubelet's checkpoint can be read again")
        self._checkpoint = checkpoint
        self._remember()
        self._tell()
        if self._nameless - self._asked_for:
            self.look()
        self._look_for_ends()

    def _is_lost(self, read: CheckpointState) -> bool:
        """Whether there is no file although this kubelet has had one."""
        return not read.written and not self._fresh_kubelet

    def _removed(self) -> CheckpointState:
        """What was known last: the file is not there, although the kubelet has had one."""
        self._fresh_kubelet = False
        # The kubelet has it all in memory, and writes it with the next list.
        self._observer.resend_lists()
        return self._doubtful(f"{self._path} was removed while the kubelet runs")

    def _doubtful(self, problem: str) -> CheckpointState:
        """What was known last, with the reason why nothing newer is."""
        known = self._checkpoint or CheckpointState()
        if known.problem != problem:
            self._log.error(
                "The kubelet's checkpoint cannot be read: {problem}. The holders known last "
                "stay, and no share leaves the list until it can be read",
                problem=problem,
            )
        return evolve(known, problem=problem)

    def _tick(self) -> None:
        self._refreshing.set(WHILE_HELD, self._tick)
        now = self._reactor.seconds()
        due = self._waited_for or now >= self._last_refresh + OTHERWISE
        may = now >= max(self._not_before, self._rested(DUTY))
        if due and self._asking is None and may:
            self._refresh()

    @property
    def _waited_for(self) -> bool:
        """Whether a pod holds shares, or may (without a file nobody knows), or something waits."""
        known = self._checkpoint
        held = known is not None and (bool(known.holders) or not known.written)
        return held or self._observer.waiting()

    @property
    def _nameless(self) -> frozenset[str]:
        """The pods whose name is not known yet."""
        return self._holding - self._names.keys()

    @property
    def _holding(self) -> frozenset[str]:
        """The pods that hold shares."""
        holders = self._checkpoint.holders if self._checkpoint else ()
        return frozenset(holder.pod for holder in holders)

    def _remember(self, listed: Mapping[str, tuple[str, str]] | None = None) -> bool:
        """Keep the names of the pods that hold shares; whether one is new.

        `listed`: those that podresources has told.
        """
        known = {**self._names, **(listed or {}), **self._told_names}
        holding, before = self._holding, self._names
        self._names = {pod: name for pod, name in known.items() if pod in holding}
        return self._names != before

    def _refresh(self) -> None:
        self._last_refresh = asked = self._reactor.seconds()
        self._asked_for = self._nameless
        if not self._lists.reachable:
            self._not_before = asked + UNREACHABLE
            self._doubted("its socket is not there")
            self._confirm()
            return
        self._asking = self._lists.held()

        def done(result: tuple[NamedPod, ...] | Failure) -> None:
            if self._asking is None:
                return  # stopped
            self._asking = None
            if isinstance(result, Failure):
                self._back_off()
                self._doubted(why(result.value))
            else:
                self._failures = 0
                self._took = self._reactor.seconds() - asked
                self._named(result)
                self._look_for_ends()

        self._asking.addBoth(done)

    def _back_off(self) -> None:
        self._failures += 1
        wait = min(OTHERWISE, WHILE_HELD * 2.0 ** min(self._failures, 10))
        self._not_before = self._reactor.seconds() + wait

    def _doubted(self, problem: str) -> None:
        """Without podresources there is no bound for how late a pod's end is seen."""
        if not self._doubt:
            self._log.warn(
                "podresources cannot be asked: {problem}. Holders may be stale: sgpud notices "
                "late that a pod has ended",
                problem=problem,
            )
        doubt = f"podresources cannot be asked: {problem}"
        if doubt != self._doubt:
            self._doubt = doubt
            self._tell()

    def _named(self, named: tuple[NamedPod, ...]) -> None:
        checkpoint = self._checkpoint or CheckpointState()
        if named and not checkpoint.written and not checkpoint.problem:
            checkpoint = self._checkpoint = self._removed()
            self._tell()
        listed = names(checkpoint, named)
        before = (self._listed, self._doubt)
        self._listed, self._doubt = frozenset(listed), ""
        if self._remember(listed) or before != (self._listed, ""):
            self._tell()
        self._compare(frozenset(one for entry in named for one in entry.ids))

    def _tell(self) -> None:
        if self._checkpoint is not None:
            named = with_names(self._checkpoint, self._names)
            self._observer.on_checkpoint(evolve(named, doubt=self._doubt, listed=self._listed))

    def _compare(self, listed: frozenset[str]) -> None:
        """Resend the lists if the file holds what the kubelet may have freed meanwhile.

        The kubelet may leave a pod out of the answer before it frees what the pod held, and an
        ordinary init container stands in the file and never in the answer: the same difference is
        a reason to resend again, but with increasing back-off.
        """
        checkpoint = self._checkpoint or CheckpointState()
        recorded = frozenset(one for holder in checkpoint.holders for one in ids(holder.shares))
        difference = (recorded - listed, listed)
        now = self._reactor.seconds()
        if difference != self._resent_for:
            self._resent_for, self._resend_after, self._resend_at = difference, WHILE_HELD, now
        if recorded - listed and now >= self._resend_at:
            self._resend_at = now + self._resend_after
            self._resend_after = min(OTHERWISE, 2 * self._resend_after)
            self._observer.resend_lists()
        else:
            self._confirm()

    def _confirm(self) -> None:
        """Resend the lists if the file is older than a grant that it does not name.

        That of a pod that ended at once, or that failed after our answer: nothing else makes the
        kubelet write, and until it does the shares count as held.
        """
        now = self._reactor.seconds()
        if now >= self._confirmed + CONFIRM_EVERY and self._observer.unconfirmed():
            self._confirmed = now
            self._observer.resend_lists()
