"""The registration machine: runs against kubelets in virtual time, and examples."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.registration import (
    LONGEST_WAIT,
    STABLE_AFTER,
    STREAM_WITHIN,
    Effect,
    Event,
    KubeletGone,
    KubeletSeen,
    Phase,
    Refused,
    Register,
    Registered,
    Retire,
    Retired,
    Serve,
    Served,
    ServeFailed,
    State,
    Stop,
    Streams,
    TimeUp,
    Wait,
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
    state: State = field(factory=State)
    tries: list[float] = field(factory=list)
    wait: tuple[float, Wait] | None = None
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
        if isinstance(effect, Wait):
            self.wait = (self.now + effect.seconds, effect)
        elif isinstance(effect, Serve):
            self.tries.append(self.now)
            works = self.serves()
            self.tell(Served(generation) if works else ServeFailed(generation, "no space left"))
        elif isinstance(effect, Retire):
            self.ends = None
            self.tell(Retired(generation))
        elif self.registers():
            self.tell(Registered(generation))
            if self.keeps_a_stream is not None:
                self.ends = self.now + self.keeps_a_stream
                self.tell(Streams(generation, 1))
        else:
            self.tell(Refused(generation, "unavailable"))

    def run(self, until: float) -> World:
        while True:
            dues = [until]
            dues += [self.wait[0]] if self.wait else []
            dues += [self.ends] if self.ends is not None else []
            self.now = min(dues)
            if self.ends == self.now < until:
                self.ends = None
                self.tell(Streams(self.state.generation, 0))
            elif self.wait and self.wait[0] == self.now < until:
                generation, self.wait = self.wait[1].generation, None
                self.tell(TimeUp(generation))
            else:
                return self


def started(**how: Any) -> World:
    world = World(**how)
    world.tell(KubeletSeen())
    return world


BAD: dict[str, dict[str, Any]] = {
    "refuses": {"registers": lambda: False},
    "cannot serve": {"serves": lambda: False},
    "drops every stream at once": {"keeps_a_stream": 0.0},
    "drops every stream after a while": {"keeps_a_stream": STABLE_AFTER / 2},
    "opens no stream": {"keeps_a_stream": None},
}


@pytest.mark.parametrize("how", BAD.values(), ids=BAD.keys())
def test_a_kubelet_that_fails_is_asked_ever_more_seldom(how: dict[str, Any]) -> None:
    world = started(**how).run(until=3600.0)
    gaps = [round(later - earlier, 6) for earlier, later in pairwise(world.tries)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= backoff(1)
    assert gaps[-1] >= LONGEST_WAIT
    assert 100 <= len(world.tries) <= 10 + 3600 / LONGEST_WAIT
    assert world.state.problem or world.state.phase is Phase.LIVE


@pytest.mark.parametrize("how", BAD.values(), ids=BAD.keys())
def test_a_new_kubelet_is_asked_at_once(how: dict[str, Any]) -> None:
    world = started(**how).run(until=1000.0)
    if world.state.phase is not Phase.WAITING:
        world.run(until=1000.0 + STREAM_WITHIN + STABLE_AFTER)
    world.serves = world.registers = lambda: True
    world.keeps_a_stream = float("inf")
    world.tell(KubeletSeen())
    assert (world.state.phase, world.state.attempt) == (Phase.LIVE, 0)
    assert world.state.problem == ""


def test_a_stable_stream_that_ends_is_followed_by_a_try_at_once() -> None:
    world = started(keeps_a_stream=STABLE_AFTER + 1).run(until=100.0)
    assert world.tries == [11.0 * turn for turn in range(10)]


@given(st.lists(st.booleans(), max_size=30))
def test_any_row_of_refusals_ends_live_when_the_kubelet_works(answers: list[bool]) -> None:
    left = list(answers)
    world = started(registers=lambda: left.pop() if left else True).run(
        until=30 * LONGEST_WAIT + 60
    )
    assert world.state.phase is Phase.LIVE


def test_backoff_grows_to_its_limit_and_never_beyond() -> None:
    waits = [backoff(attempt) for attempt in range(-1, 2000)]
    assert waits[:5] == [0.0, 0.0, 0.1, 0.2, 0.4]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT


# Examples. -------------------------------------------------------------------------------------


def after(*events: Event) -> tuple[State, tuple[Effect, ...]]:
    """The state after these events, and the last one's effects."""
    state = State()
    effects: tuple[Effect, ...] = ()
    for event in events:
        state, effects = step(state, event)
    return state, effects


REGISTERING = (KubeletSeen(), Served(1))
LIVE = (*REGISTERING, Registered(1), Streams(1, 1))


def test_it_serves_then_registers_then_awaits_the_stream() -> None:
    assert after(KubeletSeen())[1] == (Serve(1),)
    assert after(*REGISTERING)[1] == (Register(1),)
    assert after(*REGISTERING, Registered(1))[1] == (Wait(1, STREAM_WITHIN),)
    state, effects = after(*LIVE)
    assert (state.phase, effects) == (Phase.LIVE, (Wait(1, STABLE_AFTER),))


def test_the_stream_may_come_before_the_answer() -> None:
    state, _ = after(*REGISTERING, Streams(1, 1))
    assert state.phase is Phase.LIVE
    for late in (Registered(1), Refused(1, "deadline exceeded")):
        assert step(state, late) == (state, ())


def test_nothing_that_happens_to_the_socket_ends_a_live_stream() -> None:
    state, _ = after(*LIVE)
    for event in (KubeletSeen(), KubeletGone(), KubeletSeen()):
        state, effects = step(state, event)
        assert (state.phase, effects) == (Phase.LIVE, ())


def test_a_kubelet_that_came_while_the_stream_lived_is_tried_at_once_when_it_ends() -> None:
    assert after(*LIVE, KubeletSeen(), Streams(1, 0), Retired(1))[1] == (Serve(2),)


def test_without_a_kubelet_it_waits_for_one() -> None:
    state, effects = after(*LIVE, KubeletGone(), Streams(1, 0), Retired(1))
    assert (state.phase, effects) == (Phase.ABSENT, ())
    assert step(state, KubeletSeen())[1] == (Serve(2),)


def test_another_kubelet_is_tried_before_the_wait_for_the_old_one_s_stream_is_over() -> None:
    state, effects = after(*REGISTERING, Registered(1), KubeletSeen())
    assert (state.phase, effects) == (Phase.RETIRING, (Retire(1),))
    assert step(state, Retired(1))[1] == (Serve(2),)


def test_stopping_while_retiring_waits_for_that_and_retires_no_second_time() -> None:
    state, effects = after(*LIVE, Streams(1, 0), Stop())
    assert (state.phase, effects) == (Phase.STOPPING, ())
    assert step(state, Retired(1))[0].phase is Phase.STOPPED


def test_one_stream_of_several_may_end() -> None:
    state, effects = after(*LIVE, Streams(1, 2), Streams(1, 1))
    assert (state.phase, state.streams, effects) == (Phase.LIVE, 1, ())


def test_the_reason_of_a_failure_is_kept_until_a_stream_lives() -> None:
    state, _ = after(*REGISTERING, Refused(1, "wrong version"), Retired(1))
    assert (state.phase, state.problem) == (Phase.WAITING, "wrong version")
    state, _ = after(
        *REGISTERING, Refused(1, "wrong version"), Retired(1), KubeletSeen(), Served(2)
    )
    assert step(state, Streams(2, 1))[0].problem == ""


def test_a_kubelet_that_came_during_a_try_is_good_for_one_try_at_once() -> None:
    failed = (*REGISTERING, KubeletSeen(), Refused(1, "unavailable"), Retired(1))
    assert after(*failed)[1] == (Serve(2),)
    again = (*failed, Served(2), Refused(2, "unavailable"), Retired(2))
    assert after(*again)[1] == (Wait(2, backoff(1)),)
