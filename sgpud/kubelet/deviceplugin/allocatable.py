"""Checks, while a stream lives, whether the ids that the kubelet counts as allocatable are ours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock, Timer
from sgpud.core.registration.events import (
    AllocatableOwner,
    AllocatableRead,
    RegistrationPhase,
    RegistrationState,
)
from sgpud.kubelet.outgoing import why

Allocatable = Mapping[str, frozenset[str]]
"""The ids that the kubelet counts as allocatable, by resource."""

EVERY = 1.0
"""Seconds between two checks while all is well."""
EVERY_SUSPECT = 0.25
"""Seconds between two checks while ids are missing, foreign, or not known yet."""
SETTLES_WITHIN = 5.0
"""Seconds of missing ids after which closer checks bring nothing more."""
MIN_INTERVAL = 0.1
"""Seconds between two checks at least, whatever hints arrive."""
DUTY = 20.0
"""The interval is at least so many times the time that the last answer took."""
MAX_INTERVAL = 30.0
"""Seconds between two checks at most, while podresources fails."""
_SERVED = (RegistrationPhase.LIVE, RegistrationPhase.SUPERSEDED)


@frozen
class ListedIds:
    """What one pool lists."""

    every: Collection[str] = field(factory=frozenset)
    """Its ids, healthy or not: a set or a dictionary."""
    healthy: int = 0
    """How many are Healthy."""


class AllocatableObserver(Protocol):
    """The pools whose registrations are checked."""

    @property
    def registrations(self) -> Mapping[str, RegistrationState]:
        """The state of each pool's registration."""

    def listed(self, resource: str) -> ListedIds:
        """What the pool lists now."""

    def allocatable_read(self, resource: str, event: AllocatableRead) -> None:
        """The allocatable ids of a pool were read."""

    def books_read(self, numbers: Mapping[str, int]) -> bool:
        """How many ids are allocatable, of the pools of which the books show what is listed.

        Whether the books of the others are to be read again soon.
        """


@frozen
class _Shown:
    """What was allocatable of one generation of one pool, and since when."""

    generation: int
    shows: AllocatableOwner | None
    since: float


class AllocatableMonitor:
    """Asks podresources while a stream lives, and reports the owner of the allocatable ids."""

    _log = Logger()

    def __init__(
        self,
        reactor: Clock,
        ask: Callable[[Collection[str]], Deferred[Allocatable]],
        observer: AllocatableObserver,
    ) -> None:
        """`ask` asks for the allocatable ids of these resources."""
        self._reactor = reactor
        self._ask = ask
        self._observer = observer
        self._shown: dict[str, _Shown] = {}
        self._asked_at = float("-inf")
        self._took = 0.0
        self._failures = 0
        self._close_until = float("-inf")
        self._asking: Deferred[Allocatable] | None = None
        self._next = Timer(reactor)

    def start(self) -> None:
        """Start checking."""
        self._check_in(EVERY)

    def stop(self) -> None:
        """Stop checking."""
        self._next.cancel()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def hint(self) -> None:
        """The kubelet may have changed something, e.g. read another plugin's list."""
        if self._next.active and not self._failures:
            self._check_in(MIN_INTERVAL)

    def watch_closely(self) -> None:
        """Another plugin's socket appeared: look often for a while.

        A plugin of the same resource that ends soon leaves a trace only until our next list.
        """
        self._close_until = self._reactor.seconds() + SETTLES_WITHIN
        self.hint()

    def _check_in(self, delay: float) -> None:
        """Check in at most `delay` seconds, but not too soon after the last check."""
        soonest = self._asked_at + max(MIN_INTERVAL, DUTY * self._took) - self._reactor.seconds()
        self._next.at_most(max(delay, soonest), self._check)

    def _check(self) -> None:
        now = self._reactor.seconds()
        asked = {
            resource: state.generation
            for resource, state in self._observer.registrations.items()
            if state.phase in _SERVED
        }
        known = {
            name: one for name, one in self._shown.items() if asked.get(name) == one.generation
        }
        # A new registration may still show the ids of the plugin before it.
        young = {
            name: _Shown(number, None, now) for name, number in asked.items() if name not in known
        }
        self._shown = {**known, **young}
        if young:
            self._failures = 0
        if not known:
            self._observer.books_read({})
            self._check_in(EVERY_SUSPECT if young else EVERY)
            return
        self._asked_at = now
        self._asking = self._ask(tuple(known))

        def answered(result: Allocatable | Failure) -> None:
            if self._asking is None:
                return  # stopped
            self._asking = None
            self._took = self._reactor.seconds() - now
            if isinstance(result, Failure):
                self._refused(result)
            else:
                self._compare(result, known)

        self._asking.addBoth(answered)

    def _refused(self, failure: Failure) -> None:
        if not self._failures:
            self._log.debug(
                "Cannot get the allocatable ids from podresources: {problem}",
                problem=why(failure.value),
            )
        self._failures += 1
        # A duration counts only if it was observed without a gap.
        self._shown = {name: _Shown(one.generation, None, 0.0) for name, one in self._shown.items()}
        self._took = 0.0
        self._observer.books_read({})
        self._check_in(min(MAX_INTERVAL, EVERY * 2.0 ** min(self._failures, 10)))

    def _compare(self, allocatable: Allocatable, asked: Mapping[str, _Shown]) -> None:
        now = self._reactor.seconds()
        self._failures = 0
        suspect = False
        agreed: dict[str, int] = {}
        for resource, before in asked.items():
            found = allocatable.get(resource, frozenset())
            listed = self._observer.listed(resource)
            others = found.difference(listed.every)
            shows = (
                AllocatableOwner.OTHERS
                if others
                else AllocatableOwner.OURS
                if found
                else AllocatableOwner.NOTHING
            )
            if not others and len(found) == listed.healthy:
                agreed[resource] = len(found)
            since = before.since if before.shows is shows else now
            self._shown[resource] = _Shown(before.generation, shows, since)
            if shows is not AllocatableOwner.OURS and (bool(listed.healthy) or others):
                suspect = suspect or now - since < SETTLES_WITHIN or bool(others)
            self._observer.allocatable_read(
                resource,
                AllocatableRead(
                    before.generation,
                    shows,
                    now - since,
                    bool(listed.healthy),
                    min(others, default=""),
                ),
            )
        if self._observer.books_read(agreed) and len(agreed) < len(asked):
            suspect = True
        closely = MIN_INTERVAL if now < self._close_until else EVERY
        self._check_in(min(closely, EVERY_SUSPECT) if suspect else closely)
