"""The registration machine: runs against kubelets in virtual time, and examples."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

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
from sgpud.core.registration.machine import (
    LONGEST_WAIT,
    MAX_RECLAIMS,
    MISSING_AFTER,
    RECLAIM_AFTER,
    STABLE_AFTER,
    STREAM_WITHIN,
    SUPERSEDED_AFTER,
    backoff,
    step,
)


@define
class World:
    """One pool beside one kubelet, in virtual time; serving and retiring take no time."""

    serves: Callable[[], bool] = lambda: True
    registers: Callable[[], bool] = lambda: True
    keeps_a_stream: float | None = float("inf")
    """Seconds that it keeps a stream; None: it opens none."""
    now: float = 0.0
    state: RegistrationState = field(factory=RegistrationState)
    tries: list[float] = field(factory=list)
    wait: tuple[float, StartTimer] | None = None
    ends: float | None = None

    def tell(self, event: Event) -> None:
        before = self.state
        self.state, effects = step(before, event)
        if self.state.phase is not before.phase:
            self.wait = None
        for effect in effects:
            self.do(effect)

    def do(self, effect: Effect) -> None:
        generation = effect.generation
        if isinstance(effect, StartTimer):
            self.wait = (self.now + effect.seconds, effect)
        elif isinstance(effect, ServeEndpoint):
            self.tries.append(self.now)
            works = self.serves()
            self.tell(
                EndpointServed(generation) if works else EndpointFailed(generation, "no space left")
            )
        elif isinstance(effect, RetireEndpoint):
            self.ends = None
            self.tell(EndpointRetired(generation))
        elif self.registers():
            self.tell(RegisterAnswered(generation))
            if self.keeps_a_stream is not None:
                self.ends = self.now + self.keeps_a_stream
                self.tell(StreamsChanged(generation, 1))
        else:
            self.tell(RegisterRefused(generation, "unavailable"))

    def run(self, until: float) -> World:
        while True:
            dues = [until]
            dues += [self.wait[0]] if self.wait else []
            dues += [self.ends] if self.ends is not None else []
            self.now = min(dues)
            if self.ends == self.now < until:
                self.ends = None
                self.tell(StreamsChanged(self.state.generation, 0))
            elif self.wait and self.wait[0] == self.now < until:
                generation, self.wait = self.wait[1].generation, None
                self.tell(TimerExpired(generation))
            else:
                return self


def started(**how: Any) -> World:
    world = World(**how)
    world.tell(KubeletAppeared())
    return world


BAD: dict[str, dict[str, Any]] = {
    "refuses": {"registers": lambda: False},
    "cannot serve": {"serves": lambda: False},
    "drops every stream at once": {"keeps_a_stream": 0.0},
    "drops every stream after a while": {"keeps_a_stream": STABLE_AFTER / 2},
    "opens no stream": {"keeps_a_stream": None},
}


@pytest.mark.parametrize("how", BAD.values(), ids=BAD.keys())
def test_a_failing_kubelet_is_asked_with_backoff(how: dict[str, Any]) -> None:
    world = started(**how).run(until=3600.0)
    gaps = [round(later - earlier, 6) for earlier, later in pairwise(world.tries)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= backoff(1)
    assert gaps[-1] >= LONGEST_WAIT
    assert 100 <= len(world.tries) <= 10 + 3600 / LONGEST_WAIT
    assert world.state.problem or world.state.phase is RegistrationPhase.LIVE


@pytest.mark.parametrize("how", BAD.values(), ids=BAD.keys())
def test_a_new_kubelet_is_asked_at_once(how: dict[str, Any]) -> None:
    world = started(**how).run(until=1000.0)
    if world.state.phase is not RegistrationPhase.WAITING:
        world.run(until=1000.0 + STREAM_WITHIN + STABLE_AFTER)
    world.serves = world.registers = lambda: True
    world.keeps_a_stream = float("inf")
    world.tell(KubeletAppeared())
    assert (world.state.phase, world.state.attempt) == (RegistrationPhase.LIVE, 0)
    assert world.state.problem == ""


def test_a_stable_stream_that_ends_is_replaced_at_once() -> None:
    world = started(keeps_a_stream=STABLE_AFTER + 1).run(until=100.0)
    assert world.tries == [11.0 * turn for turn in range(10)]


@given(st.lists(st.booleans(), max_size=30))
def test_any_series_of_refusals_ends_live_once_the_kubelet_works(answers: list[bool]) -> None:
    left = list(answers)
    world = started(registers=lambda: left.pop() if left else True).run(
        until=30 * LONGEST_WAIT + 60
    )
    assert world.state.phase is RegistrationPhase.LIVE


def test_backoff_grows_up_to_its_limit() -> None:
    waits = [backoff(attempt) for attempt in range(-1, 2000)]
    assert waits[:5] == [0.0, 0.0, 0.1, 0.2, 0.4]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT


# Examples. -------------------------------------------------------------------------------------


def after(*events: Event) -> tuple[RegistrationState, tuple[Effect, ...]]:
    """The state after these events, and the last one's effects."""
    state = RegistrationState()
    effects: tuple[Effect, ...] = ()
    for event in events:
        state, effects = step(state, event)
    return state, effects


REGISTERING = (KubeletAppeared(), EndpointServed(1))
LIVE = (*REGISTERING, RegisterAnswered(1), StreamsChanged(1, 1))


def test_it_serves_then_registers_then_awaits_the_stream() -> None:
    assert after(KubeletAppeared())[1] == (ServeEndpoint(1),)
    assert after(*REGISTERING)[1] == (CallRegister(1),)
    assert after(*REGISTERING, RegisterAnswered(1))[1] == (StartTimer(1, STREAM_WITHIN),)
    state, effects = after(*LIVE)
    assert (state.phase, effects) == (RegistrationPhase.LIVE, (StartTimer(1, STABLE_AFTER),))


def test_the_stream_may_come_before_the_answer() -> None:
    state, _ = after(*REGISTERING, StreamsChanged(1, 1))
    assert state.phase is RegistrationPhase.LIVE
    for late in (RegisterAnswered(1), RegisterRefused(1, "deadline exceeded")):
        assert step(state, late) == (state, ())


def test_changes_of_kubelet_sock_do_not_end_a_live_stream() -> None:
    state, _ = after(*LIVE)
    for event in (KubeletAppeared(), KubeletVanished(), KubeletAppeared()):
        state, effects = step(state, event)
        assert (state.phase, effects) == (RegistrationPhase.LIVE, ())


def test_a_kubelet_that_appeared_during_a_stream_is_tried_at_once_when_it_ends() -> None:
    assert after(*LIVE, KubeletAppeared(), StreamsChanged(1, 0), EndpointRetired(1))[1] == (
        ServeEndpoint(2),
    )


def test_without_a_kubelet_it_waits_for_one() -> None:
    state, effects = after(*LIVE, KubeletVanished(), StreamsChanged(1, 0), EndpointRetired(1))
    assert (state.phase, effects) == (RegistrationPhase.ABSENT, ())
    assert step(state, KubeletAppeared())[1] == (ServeEndpoint(2),)


def test_a_new_kubelet_ends_the_wait_for_the_old_ones_stream() -> None:
    state, effects = after(*REGISTERING, RegisterAnswered(1), KubeletAppeared())
    assert (state.phase, effects) == (RegistrationPhase.RETIRING, (RetireEndpoint(1),))
    assert step(state, EndpointRetired(1))[1] == (ServeEndpoint(2),)


def test_stopping_while_retiring_does_not_retire_twice() -> None:
    state, effects = after(*LIVE, StreamsChanged(1, 0), StopRequested())
    assert (state.phase, effects) == (RegistrationPhase.STOPPING, ())
    assert step(state, EndpointRetired(1))[0].phase is RegistrationPhase.STOPPED


def test_one_stream_of_several_may_end() -> None:
    state, effects = after(*LIVE, StreamsChanged(1, 2), StreamsChanged(1, 1))
    assert (state.phase, state.streams, effects) == (RegistrationPhase.LIVE, 1, ())


def test_the_reason_of_a_failure_is_kept_until_a_stream_is_live() -> None:
    state, _ = after(*REGISTERING, RegisterRefused(1, "wrong version"), EndpointRetired(1))
    assert (state.phase, state.problem) == (RegistrationPhase.WAITING, "wrong version")
    state, _ = after(
        *REGISTERING,
        RegisterRefused(1, "wrong version"),
        EndpointRetired(1),
        KubeletAppeared(),
        EndpointServed(2),
    )
    assert step(state, StreamsChanged(2, 1))[0].problem == ""


def test_a_kubelet_that_appeared_during_an_attempt_allows_one_immediate_retry() -> None:
    failed = (
        *REGISTERING,
        KubeletAppeared(),
        RegisterRefused(1, "unavailable"),
        EndpointRetired(1),
    )
    assert after(*failed)[1] == (ServeEndpoint(2),)
    again = (*failed, EndpointServed(2), RegisterRefused(2, "unavailable"), EndpointRetired(2))
    assert after(*again)[1] == (StartTimer(2, backoff(1)),)


@pytest.mark.parametrize(
    "before",
    [REGISTERING, (*REGISTERING, RegisterAnswered(1)), LIVE],
    ids=["asked", "answered", "live"],
)
def test_changed_options_are_told_by_a_new_registration_at_once(before: tuple[Event, ...]) -> None:
    state, effects = after(*before, OptionsChanged(1))
    assert (state.phase, effects) == (RegistrationPhase.RETIRING, (RetireEndpoint(1),))
    assert step(state, EndpointRetired(1))[1] == (ServeEndpoint(2),)


def test_changed_options_wait_for_the_end_of_another_plugin() -> None:
    state, effects = after(
        *LIVE, read(AllocatableOwner.OTHERS, SUPERSEDED_AFTER), OptionsChanged(1)
    )
    assert state.phase is RegistrationPhase.SUPERSEDED
    assert effects == ()


# The kubelet's books beside the stream. --------------------------------------------------------


def read(shows: AllocatableOwner, seconds: float = 0.0, generation: int = 1) -> AllocatableRead:
    return AllocatableRead(generation, shows, seconds, example="GPU-1::7")


NOTHING, OTHERS, OURS = AllocatableOwner.NOTHING, AllocatableOwner.OTHERS, AllocatableOwner.OURS
SUPERSEDED = (*LIVE, read(OTHERS, SUPERSEDED_AFTER))


def test_ids_missing_for_a_while_lead_to_a_new_registration() -> None:
    state, effects = after(*LIVE, read(NOTHING), read(NOTHING, MISSING_AFTER - 0.1))
    assert (state.phase, effects) == (RegistrationPhase.LIVE, ())
    state, effects = step(state, read(NOTHING, MISSING_AFTER))
    assert (state.phase, effects) == (RegistrationPhase.RETIRING, (RetireEndpoint(1),))
    assert step(state, EndpointRetired(1))[1] == (ServeEndpoint(2),)


def test_without_healthy_shares_missing_ids_are_expected() -> None:
    state, effects = after(*LIVE, AllocatableRead(1, NOTHING, 3600.0, listing=False))
    assert (state.phase, effects) == (RegistrationPhase.LIVE, ())


def test_a_superseded_pool_does_not_register_again() -> None:
    assert after(*LIVE, read(OTHERS))[0].phase is RegistrationPhase.LIVE
    state, effects = after(*SUPERSEDED)
    assert (state.phase, effects) == (RegistrationPhase.SUPERSEDED, (HoldLists(1),))
    assert "GPU-1::7" in state.problem
    for event in (read(OTHERS, 3600.0), read(OURS, 1.0), read(NOTHING, 1.0), KubeletAppeared()):
        state, effects = step(state, event)
        assert (state.phase, effects) == (RegistrationPhase.SUPERSEDED, ())


@pytest.mark.parametrize("listing", [True, False])
@pytest.mark.parametrize(("shows", "seconds"), [(NOTHING, MISSING_AFTER), (OURS, RECLAIM_AFTER)])
def test_the_end_of_the_other_plugin_leads_to_a_new_registration_at_once(
    shows: AllocatableOwner,
    seconds: float,
    listing: bool,  # noqa: FBT001
) -> None:
    state, effects = after(*SUPERSEDED, AllocatableRead(1, shows, seconds, listing=listing))
    assert (state.phase, effects) == (RegistrationPhase.RETIRING, (RetireEndpoint(1),))
    assert step(state, EndpointRetired(1))[1] == (ServeEndpoint(2),)


def test_a_superseded_pool_that_loses_its_stream_retries() -> None:
    state, effects = after(*SUPERSEDED, StreamsChanged(1, 0))
    assert (state.phase, effects) == (RegistrationPhase.RETIRING, (RetireEndpoint(1),))


@pytest.mark.parametrize("trace", [read(NOTHING), read(OTHERS)], ids=["nothing", "others"])
def test_our_ids_that_come_back_after_a_trace_of_another_plugin_are_registered_again(
    trace: AllocatableRead,
) -> None:
    """Our next list shows them again, and the kubelet still sends every pod to the other one."""
    state, _ = after(*LIVE, TimerExpired(1), read(OURS), trace)
    assert state.phase is RegistrationPhase.LIVE
    state, effects = step(state, read(OURS))
    assert (state.phase, effects) == (RegistrationPhase.RETIRING, (RetireEndpoint(1),))
    state, effects = step(state, EndpointRetired(1))
    assert effects == (ServeEndpoint(2),)
    assert (state.ours_shown, state.displaced) == (False, False)


def test_our_ids_that_went_with_our_own_list_are_no_trace_of_another_plugin() -> None:
    none = AllocatableRead(1, NOTHING, 0.0, listing=False)
    # After it the list has Healthy shares again that the kubelet has not read yet.
    state, _ = after(*LIVE, read(OURS), none, read(NOTHING), read(OURS))
    assert state.phase is RegistrationPhase.LIVE


def test_ids_that_are_not_ours_yet_are_no_trace_of_another_plugin() -> None:
    state, _ = after(*LIVE, read(OTHERS), read(NOTHING), read(OURS), read(OURS))
    assert state.phase is RegistrationPhase.LIVE


def test_ids_that_never_appear_stop_new_registrations() -> None:
    state, generation = after(*LIVE)[0], 1
    for _ in range(MAX_RECLAIMS):
        state, _ = step(state, read(NOTHING, MISSING_AFTER, generation))
        state, _ = step(state, EndpointRetired(generation))
        if state.phase is RegistrationPhase.WAITING:
            state, _ = step(state, TimerExpired(generation))
        generation += 1
        assert (state.phase, state.generation) == (RegistrationPhase.SERVING, generation)
        for event in (
            EndpointServed(generation),
            RegisterAnswered(generation),
            StreamsChanged(generation, 1),
        ):
            state, _ = step(state, event)
    assert step(state, read(NOTHING, 3600.0, generation)) == (state, ())
    believed, _ = step(state, read(OURS, 0.0, generation))
    assert step(believed, read(NOTHING, MISSING_AFTER, generation))[1] == (
        RetireEndpoint(generation),
    )
