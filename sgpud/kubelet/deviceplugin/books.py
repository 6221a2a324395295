"""Reads the kubelet's own books beside each live stream: whether the allocatable ids are ours."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from attrs import field, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock, Timer
from sgpud.core.registration.events import (
    BooksContent,
    BooksRead,
    RegistrationPhase,
    RegistrationState,
)
from sgpud.kubelet.outgoing import why

Allocatable = Mapping[str, frozenset[str]]
"""The ids that the kubelet counts as allocatable, by resource."""

EVERY = 1.0
"""Seconds between two looks while everything is as it should be."""
CLOSELY = 0.25
"""Seconds between two looks while something is not, or is not known yet."""
SETTLES_WITHIN = 5.0
"""Seconds after which nothing more comes of books that show nothing."""
HINTED = 0.1
"""Seconds between two looks at least, whatever hints there are."""
DUTY = 20.0
"""An answer that took long to come and to read is asked for this many times more seldom."""
SELDOM = 30.0
"""Seconds between two looks at most, while podresources refuses."""
_SERVED = (RegistrationPhase.LIVE, RegistrationPhase.SUPERSEDED)


@frozen
class ListedIds:
    """What one pool lists."""

    every: Collection[str] = field(factory=frozenset)
    """Its ids, whatever their health: a set or a dictionary."""
    any_healthy: bool = False


class BooksObserver(Protocol):
    """Whose registrations are compared with the books."""

    @property
    def registrations(self) -> Mapping[str, RegistrationState]:
        """Where each pool's registration stands."""

    def listed(self, resource: str) -> ListedIds:
        """What the pool lists now."""

    def books_read(self, resource: str, event: BooksRead) -> None:
        """Take in what the books show of a pool."""


@frozen
class _Shown:
    """What the books have shown of one generation of one pool, and since when."""

    generation: int
    shows: BooksContent | None
    since: float


class BooksMonitor:
    """Asks podresources while a stream lives, and tells what it shows."""

    _log = Logger()

    def __init__(
        self,
        reactor: Clock,
        ask: Callable[[Collection[str]], Deferred[Allocatable]],
        observer: BooksObserver,
    ) -> None:
        """`ask` asks for the allocatable ids of these resources."""
        self._reactor = reactor
        self._ask = ask
        self._observer = observer
        self._shown: dict[str, _Shown] = {}
        self._asked_at = float("-inf")
        self._took = 0.0
        self._failures = 0
        self._asking: Deferred[Allocatable] | None = None
        self._next = Timer(reactor)

    def start(self) -> None:
        """Look from now on."""
        self._look_in(EVERY)

    def stop(self) -> None:
        """Look no more."""
        self._next.cancel()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()

    def hint(self) -> None:
        """The kubelet may have written something: another plugin's list, for instance."""
        if self._next.active and not self._failures:
            self._look_in(HINTED)

    def _look_in(self, delay: float) -> None:
        """Have the next look in `delay` seconds, or before, but not too soon after the last."""
        soonest = self._asked_at + max(HINTED, DUTY * self._took) - self._reactor.seconds()
        self._next.at_most(max(delay, soonest), self._look)

    def _look(self) -> None:
        now = self._reactor.seconds()
        asked = {
            resource: state.generation
            for resource, state in self._observer.registrations.items()
            if state.phase in _SERVED
        }
        known = {
            name: one for name, one in self._shown.items() if asked.get(name) == one.generation
        }
        # Of a registration this young the books may still show the plugin before it.
        young = {
            name: _Shown(number, None, now) for name, number in asked.items() if name not in known
        }
        self._shown = {**known, **young}
        if young:
            self._failures = 0
        if not known:
            self._look_in(CLOSELY if young else EVERY)
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
                "podresources does not say what is allocatable: {problem}",
                problem=why(failure.value),
            )
        self._failures += 1
        # What lasts has to be seen to last.
        self._shown = {name: _Shown(one.generation, None, 0.0) for name, one in self._shown.items()}
        self._took = 0.0
        self._look_in(min(SELDOM, EVERY * 2.0 ** min(self._failures, 10)))

    def _compare(self, allocatable: Allocatable, asked: Mapping[str, _Shown]) -> None:
        now = self._reactor.seconds()
        self._failures = 0
        closely = False
        for resource, before in asked.items():
            found = allocatable.get(resource, frozenset())
            listed = self._observer.listed(resource)
            others = found.difference(listed.every)
            shows = (
                BooksContent.OTHERS
                if others
                else BooksContent.OURS
                if found
                else BooksContent.NOTHING
            )
            since = before.since if before.shows is shows else now
            self._shown[resource] = _Shown(before.generation, shows, since)
            if shows is not BooksContent.OURS and (listed.any_healthy or others):
                closely = closely or now - since < SETTLES_WITHIN or bool(others)
            self._observer.books_read(
                resource,
                BooksRead(
                    before.generation,
                    shows,
                    now - since,
                    listed.any_healthy,
                    min(others, default=""),
                ),
            )
        self._look_in(CLOSELY if closely else EVERY)
