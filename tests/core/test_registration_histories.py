"""The registration machine's five invariants, over random histories."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sgpud.core.registration.events import (
    AllocatableOwner,
    AllocatableRead,
    CallRegister,
    Effect,
    EndpointFailed,
    EndpointRetired,
    EndpointServed,
    Event,
    HoldLists,
    KubeletAppeared,
    KubeletVanished,
    OptionsChanged,
    RegisterAnswered,
    RegisterRefused,
    RegistrationPhase,
    RegistrationState,
    RetireEndpoint,
    ServeEndpoint,
    StartTimer,
    StopRequested,
    StreamsChanged,
    TimerExpired,
)
from sgpud.core.registration.machine import MISSING_AFTER, TABLE, step

SHORT = settings(max_examples=40, stateful_step_count=40)
LONG = settings(max_examples=150, stateful_step_count=50)
ENDED = (RegistrationPhase.STOPPING, RegistrationPhase.STOPPED)
SERVED = (RegistrationPhase.LIVE, RegistrationPhase.SUPERSEDED)


class Registration(RuleBasedStateMachine):
    """The machine in a world that answers in any order, late, twice, or with a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.state = RegistrationState()
        self.alive: set[int] = set()
        """Generations whose endpoint is there, in the making, or not retired yet."""
        self.listening: set[int] = set()
        self.retiring: set[int] = set()
        self.pending: list[Event] = []
        self.timer: StartTimer | None = None
        self.tries = 0
        self.allowed = 0
        """Tries that are paid for: by a wait, a new kubelet.sock, the end of a stable stream."""
        self.stopped = False

    # The world. ------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        before = self.state
        if isinstance(event, EndpointServed):
            self.listening.add(event.generation)
        if isinstance(event, EndpointRetired | EndpointFailed):
            self.alive.discard(event.generation)
        self.state, effects = step(before, event)
        self.check(before, event, effects)
        if self.state.phase is not before.phase:
            self.timer = None
        for effect in effects:
            self.do(effect)

    def check(self, before: RegistrationState, event: Event, effects: Iterable[Effect]) -> None:
        row = TABLE.get((before.phase, type(event)))
        if self.state.phase is not before.phase:
            assert row is not None
            assert self.state.phase in row.to
        if before.phase in ENDED:
            assert tuple(effects) == ()
        generation = getattr(event, "generation", before.generation)
        if generation != before.generation:
            assert (self.state, tuple(effects)) == (before, ())

    def do(self, effect: Effect) -> None:
        assert not self.stopped or isinstance(effect, RetireEndpoint)
        if isinstance(effect, ServeEndpoint):
            assert not self.alive
            self.tries += 1
            self.alive.add(effect.generation)
            self.pending.append(EndpointServed(effect.generation))
        elif isinstance(effect, CallRegister):
            assert self.alive == {effect.generation} <= self.listening - self.retiring
            self.pending.append(RegisterAnswered(effect.generation))
        elif isinstance(effect, RetireEndpoint):
            assert effect.generation in self.alive - self.retiring
            self.retiring.add(effect.generation)
            self.pending.append(EndpointRetired(effect.generation))
        elif isinstance(effect, HoldLists):
            assert effect.generation in self.alive - self.retiring
        else:
            assert effect.seconds > 0
            self.timer = effect

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), fails=st.booleans(), twice=st.booleans())
    def answer(self, data: st.DataObject, fails: bool, twice: bool) -> None:  # noqa: FBT001
        event = data.draw(st.sampled_from(self.pending))
        if not twice:
            self.pending.remove(event)
        if fails and isinstance(event, EndpointServed) and event.generation not in self.listening:
            self.pending = [one for one in self.pending if one != event]
            event = EndpointFailed(event.generation, "no space left")
        elif fails and isinstance(event, RegisterAnswered):
            event = RegisterRefused(event.generation, "unavailable")
        elif isinstance(event, EndpointServed) and event.generation in self.retiring:
            return
        self.tell(event)

    @rule()
    def see_a_kubelet(self) -> None:
        self.allowed += 1
        self.tell(KubeletAppeared())

    @rule()
    def miss_the_kubelet(self) -> None:
        self.tell(KubeletVanished())

    @rule(live=st.integers(0, 3), age=st.integers(0, 2))
    def change_streams(self, live: int, age: int) -> None:
        if self.state.phase in SERVED and self.state.settled and not live and not age:
            self.allowed += 1
        self.tell(StreamsChanged(self.state.generation - age, live))

    @rule(
        shows=st.sampled_from(AllocatableOwner),
        seconds=st.sampled_from((0.0, 1.0, MISSING_AFTER, 60.0)),
        age=st.integers(0, 2),
        listing=st.booleans(),
    )
    def read_the_books(
        self,
        shows: AllocatableOwner,
        seconds: float,
        age: int,
        listing: bool,  # noqa: FBT001
    ) -> None:
        before = self.state
        event = AllocatableRead(before.generation - age, shows, seconds, listing, "x::1")
        self.tell(event)
        if self.state.phase is not before.phase:
            assert before.phase in SERVED
            # Each of these is paid for by the time for which the books have shown it.
            self.allowed += self.state.phase is RegistrationPhase.RETIRING

    @rule(age=st.integers(0, 2))
    def change_the_options(self, age: int) -> None:
        before = self.state
        self.tell(OptionsChanged(before.generation - age))
        # Each is paid for by a reload.
        self.allowed += self.state.phase is not before.phase

    @precondition(lambda self: self.timer)
    @rule()
    def let_time_pass(self) -> None:
        assert self.timer is not None
        timer, self.timer = self.timer, None
        self.allowed += self.state.phase is RegistrationPhase.WAITING
        self.tell(TimerExpired(timer.generation))

    @rule()
    def stop(self) -> None:
        self.stopped = True
        self.tell(StopRequested())

    # Invariants. -----------------------------------------------------------------------------

    @invariant()
    def at_most_one_endpoint_is_alive(self) -> None:
        assert len(self.alive) <= 1

    @invariant()
    def nothing_is_alive_that_nobody_answers_for(self) -> None:
        quiet = (RegistrationPhase.ABSENT, RegistrationPhase.WAITING, RegistrationPhase.STOPPED)
        assert self.state.phase not in quiet or not self.alive

    @invariant()
    def a_live_stream_is_what_live_means(self) -> None:
        assert (self.state.phase in SERVED) == (self.state.streams > 0)

    @invariant()
    def every_try_is_paid_for(self) -> None:
        assert self.tries <= self.allowed

    @invariant()
    def something_will_happen_unless_it_is_the_kubelet_s_turn(self) -> None:
        waits = self.state.phase in (RegistrationPhase.AWAITING, RegistrationPhase.WAITING)
        assert not waits or self.timer is not None
        assert self.state.phase is not RegistrationPhase.RETIRING or self.pending

    def teardown(self) -> None:
        """From any history: stopped, or live as soon as a kubelet works."""
        for _ in range(20):
            if self.state.phase is (
                RegistrationPhase.STOPPED if self.stopped else RegistrationPhase.LIVE
            ):
                break
            if self.state.phase is RegistrationPhase.ABSENT:
                self.tell(KubeletAppeared())
            elif self.state.phase is RegistrationPhase.AWAITING:
                self.tell(StreamsChanged(self.state.generation, 1))
            elif self.state.phase is RegistrationPhase.SUPERSEDED:
                nothing = AllocatableOwner.NOTHING
                self.tell(AllocatableRead(self.state.generation, nothing, MISSING_AFTER))
            elif self.pending:
                self.tell(self.pending.pop(0))
            else:
                assert self.timer is not None
                self.tell(TimerExpired(self.timer.generation))
        assert self.state.phase is (
            RegistrationPhase.STOPPED if self.stopped else RegistrationPhase.LIVE
        )
        assert not (self.stopped and self.alive)


@pytest.mark.slow
def test_the_invariants_hold() -> None:
    run_state_machine_as_test(Registration, settings=SHORT)


@pytest.mark.slow
@pytest.mark.long
def test_the_invariants_hold_at_length() -> None:
    run_state_machine_as_test(Registration, settings=LONG)
