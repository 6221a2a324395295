"""When the allocatable ids are requested, and what is reported of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sgpud.core.registration.events import (
    AllocatableOwner,
    AllocatableRead,
    RegistrationPhase,
    RegistrationState,
)
from sgpud.kubelet.deviceplugin.allocatable import (
    DUTY,
    EVERY,
    EVERY_SUSPECT,
    MAX_INTERVAL,
    MIN_INTERVAL,
    SETTLES_WITHIN,
    Allocatable,
    AllocatableMonitor,
    ListedIds,
)
from tests.core.values import OTHER, POOL, ids

OURS = frozenset(ids(0, 0, 1))
LIVE = RegistrationState(RegistrationPhase.LIVE, generation=1, streams=1)


@define
class Pools:
    """Pools that list two shares, and what they were told."""

    registrations: dict[str, RegistrationState] = field(factory=lambda: {POOL: LIVE})
    healthy: bool = True
    events: list[tuple[str, AllocatableRead]] = field(factory=list)
    agreed: list[dict[str, int]] = field(factory=list)
    prompt: bool = False

    def listed(self, _resource: str) -> ListedIds:
        return ListedIds(OURS, len(OURS) if self.healthy else 0)

    def allocatable_read(self, resource: str, event: AllocatableRead) -> None:
        self.events.append((resource, event))

    def books_read(self, numbers: Mapping[str, int]) -> bool:
        self.agreed.append(dict(numbers))
        return self.prompt

    @property
    def shown(self) -> list[tuple[AllocatableOwner, float]]:
        return [(event.shows, event.seconds) for _, event in self.events]


class BooksTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pools = Pools()
        self.asked: list[Deferred[Allocatable]] = []
        self.wanted: list[tuple[str, ...]] = []
        self.cancelled = 0
        self.monitor = AllocatableMonitor(self.clock, self.ask, self.pools)
        self.monitor.start()
        self.addCleanup(self.monitor.stop)

    def ask(self, resources: Collection[str]) -> Deferred[Allocatable]:
        self.wanted.append(tuple(resources))
        self.asked.append(Deferred(self.cancel))
        return self.asked[-1]

    def cancel(self, _: object) -> None:
        self.cancelled += 1

    def seconds(self, count: float) -> None:
        self.clock.pump([1 / 32] * round(count * 32))

    def answer(self, shown: Collection[str], of: str = POOL) -> None:
        books: Mapping[str, frozenset[str]] = {of: frozenset(shown)} if shown else {}
        self.asked[-1].callback(books)

    def settled(self) -> None:
        """The first look at a live stream, which asks nothing, and the second one, which does."""
        self.seconds(EVERY + EVERY_SUSPECT)
        assert len(self.asked) == 1

    def test_nothing_is_asked_without_a_live_stream(self) -> None:
        self.pools.registrations = {
            f"{POOL}-{phase.name}": evolve(LIVE, phase=phase)
            for phase in RegistrationPhase
            if phase not in (RegistrationPhase.LIVE, RegistrationPhase.SUPERSEDED)
        }
        self.seconds(60)
        assert self.asked == []

    def test_a_new_stream_is_given_time_and_then_checked_once_a_second(self) -> None:
        self.seconds(EVERY)
        assert self.asked == []
        self.seconds(EVERY_SUSPECT)
        self.answer(OURS)
        for times in range(2, 6):
            self.seconds(EVERY)
            assert len(self.asked) == times
            self.answer(OURS)
        assert {shows for shows, _ in self.pools.shown} == {AllocatableOwner.OURS}
        assert set(self.wanted) == {(POOL,)}

    def test_missing_ids_are_checked_more_often_and_timed(self) -> None:
        self.settled()
        self.answer(OURS)
        self.seconds(EVERY)
        self.answer(())
        for _ in range(4):
            self.seconds(EVERY_SUSPECT)
            self.answer(())
        shown = [(shows, round(seconds, 2)) for shows, seconds in self.pools.shown]
        assert shown[0] == (AllocatableOwner.OURS, 0.0)
        assert shown[1:] == [
            (AllocatableOwner.NOTHING, EVERY_SUSPECT * times) for times in range(5)
        ]

    def test_another_plugins_socket_has_them_checked_often_for_a_while(self) -> None:
        self.settled()
        self.answer(OURS)
        self.monitor.watch_closely()
        for times in range(2, 2 + round(SETTLES_WITHIN / MIN_INTERVAL / 2)):
            self.seconds(MIN_INTERVAL + 1 / 32)
            assert len(self.asked) == times
            self.answer(OURS)
        self.seconds(SETTLES_WITHIN)
        count = len(self.asked)
        self.answer(OURS)
        self.seconds(EVERY / 2)
        assert len(self.asked) == count

    def test_ids_missing_for_long_are_checked_less_often(self) -> None:
        self.settled()
        self.answer(())
        while self.pools.shown[-1][1] < SETTLES_WITHIN:
            self.seconds(EVERY_SUSPECT)
            self.answer(())
        before = len(self.asked)
        self.seconds(EVERY - 0.1)
        assert len(self.asked) == before

    def test_without_healthy_shares_nothing_is_suspect(self) -> None:
        self.pools.healthy = False
        self.settled()
        self.answer(())
        assert not self.pools.events[-1][1].listing
        self.seconds(EVERY - 0.1)
        assert len(self.asked) == 1

    def test_one_foreign_id_means_another_plugin(self) -> None:
        self.settled()
        self.answer({*OURS, "GPU-z::1", "GPU-y::1"})
        (_, event) = self.pools.events[-1]
        assert (event.shows, event.example) == (AllocatableOwner.OTHERS, "GPU-y::1")

    def test_a_generation_is_not_blamed_for_the_one_before(self) -> None:
        self.settled()
        self.answer(())
        self.pools.registrations = {POOL: evolve(LIVE, generation=2), OTHER: LIVE}
        self.seconds(EVERY_SUSPECT)
        assert len(self.asked) == 1
        self.seconds(EVERY_SUSPECT)
        self.answer(())
        found = [(name, event.generation, event.seconds) for name, event in self.pools.events[1:]]
        assert found == [(POOL, 2, 0.0), (OTHER, 1, 0.0)]

    def test_a_hint_is_followed_at_once_but_not_each_of_a_burst(self) -> None:
        self.settled()
        self.answer(OURS)
        for _ in range(64):
            self.monitor.hint()
            self.seconds(1 / 32)
            if self.asked[-1].called is False:
                self.answer(OURS)
        assert 10 <= len(self.asked) <= 2 + 2 / MIN_INTERVAL

    def test_a_slow_answer_is_requested_less_often(self) -> None:
        self.settled()
        self.seconds(0.25)
        self.answer(OURS)
        self.seconds(DUTY * 0.25 - 0.5)
        self.monitor.hint()
        assert len(self.asked) == 1
        self.seconds(0.25)
        assert len(self.asked) == 2

    def test_failures_are_retried_with_backoff_and_reset_durations(self) -> None:
        self.settled()
        self.answer(())
        self.seconds(EVERY_SUSPECT)
        self.asked[-1].errback(OSError("no socket"))
        waits = [self.refused_again() for _ in range(9)]
        assert waits == sorted(waits)
        assert waits[0] >= 2 * EVERY
        assert MAX_INTERVAL - 0.1 <= waits[-1] <= MAX_INTERVAL + 0.1
        self.pools.events.clear()
        self.refused_again(answered=True)
        assert self.pools.shown[-1] == (AllocatableOwner.NOTHING, 0.0)

    def refused_again(self, *, answered: bool = False) -> float:
        """Wait for the next question, and refuse it; how long that took."""
        began, count = self.clock.seconds(), len(self.asked)
        while len(self.asked) == count:
            self.seconds(1 / 32)
        if answered:
            self.answer(())
        else:
            self.asked[-1].errback(OSError("no socket"))
        return self.clock.seconds() - began

    def test_stopping_cancels_the_request(self) -> None:
        self.settled()
        self.monitor.stop()
        assert self.cancelled == 1
        self.seconds(60)
        assert len(self.asked) == 1
        assert self.clock.getDelayedCalls() == []

    # The numbers. --------------------------------------------------------------------------------

    def respond(self, *shown: str) -> None:
        """Answer the next question at once: a slow answer has the kubelet asked more seldom."""
        while not self.asked or self.asked[-1].called:
            self.seconds(1 / 32)
        self.asked[-1].callback({POOL: frozenset(shown)})

    def test_a_number_is_told_only_where_the_books_show_what_is_listed(self) -> None:
        self.respond(*OURS)
        assert self.pools.agreed[-1] == {POOL: 2}
        for shown in ([min(OURS)], [*OURS, "another::0"], [min(OURS), "another::0"], []):
            self.respond(*shown)
            assert self.pools.agreed[-1] == {}
        self.respond(*OURS)
        assert self.pools.agreed[-1] == {POOL: 2}

    def test_while_the_kubelet_cannot_be_asked_no_number_is_known(self) -> None:
        self.respond(*OURS)
        self.seconds(1.25)
        self.asked[-1].errback(ValueError("no"))
        assert self.pools.agreed[-1] == {}

    def test_books_that_lag_behind_are_read_again_soon_where_that_matters(self) -> None:
        for prompt in (False, True):
            self.pools.prompt = prompt
            self.respond(*OURS)
            self.respond(min(OURS))
            count = len(self.asked)
            self.seconds(0.5)
            assert len(self.asked) == count + prompt
