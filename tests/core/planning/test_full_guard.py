"""The full-GPU guard: each of its rules alone, and all of them over random series."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.gpu.observations import Sample
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import LATE, advance, next_turn
from sgpud.core.planning.full_guard import APART, MISSED, FullState, MemoryReading, limits, step
from sgpud.core.planning.node import Node, measured
from sgpud.core.planning.plan import Availability
from sgpud.core.sharing.rules import (
    FullGuardSettings,
    GpuRule,
    InjectionMethod,
    InjectionSettings,
    ShareTerms,
    Sharing,
)
from sgpud.core.units import Amount
from sgpud.kubelet.deviceplugin.messages import list_message
from tests.core.values import (
    GIB,
    OTHER,
    POOL,
    checkpoint,
    gpu,
    grant,
    group_of,
    holder,
    node,
    planned,
    pool_of,
    uuid,
)

EVERY = 5.0
POLICY = FullGuardSettings(Amount(percent=5))
"""2 GiB of 40 GiB; it resumes above 4 GiB."""


def guarded(**rest: Any) -> Sharing:
    """A configuration with the guard on."""
    shared = Sharing(
        default=ShareTerms(POOL, 10),
        full_guard=True,
        injection=InjectionSettings(InjectionMethod.NVIDIA_RUNTIME),
    )
    return evolve(shared, **rest)


def seen(free: float | None, at: float, expected: float = 0) -> MemoryReading:
    """A GPU of 40 GiB of which so many GiB are free."""
    used = None if free is None else int((40 - free) * GIB)
    return MemoryReading(40 * GIB, 0, used, at, int(expected * GIB))


def played(*series: tuple[float, float | None], policy: FullGuardSettings = POLICY) -> list[bool]:
    """Whether the GPU is full after each measurement (at, free GiB); None: nothing came."""
    watch: FullState | None = None
    last, found = seen(None, 0.0), []
    for at, free in series:
        last = last if free is None else seen(free, at)
        watch = step(watch, last, policy, EVERY, at)
        assert step(watch, last, policy, EVERY, at) == watch
        found.append(watch.full)
    return found


# Its rules. --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headroom", "resume", "expected"),
    [
        (Amount(percent=5), None, (2 * GIB, 4 * GIB)),
        (Amount(GIB), None, (GIB, 2 * GIB)),
        (Amount(GIB), Amount(percent=10), (GIB, 4 * GIB)),
        (Amount(percent=10), Amount(GIB), (4 * GIB, 4 * GIB)),
    ],
)
def test_the_limits_in_bytes(
    headroom: Amount, resume: Amount | None, expected: tuple[int, int]
) -> None:
    assert limits(FullGuardSettings(headroom, resume), 40 * GIB) == expected


def test_below_the_headroom_it_is_full_at_once() -> None:
    assert played((0, 10.0), (5, 2.0), (10, 1.99)) == [False, False, True]


def test_it_comes_back_when_enough_was_free_for_long_enough() -> None:
    series = [(0.0, 1.0), *((at, 5.0) for at in (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0))]
    assert played(*series) == [True] * 7 + [False]


def test_one_measurement_below_the_limit_restarts_the_time() -> None:
    clear = [(float(at), 5.0) for at in range(5, 100, 5)]
    clear[3] = (20.0, 4.0)
    found = played((0.0, 1.0), *clear)
    assert found.index(False) == 1 + clear.index((55.0, 5.0))


def test_between_headroom_and_resume_nothing_changes() -> None:
    assert played((0, 3.0), (100, 3.0)) == [False, False]
    assert played((0, 1.0), *((float(at), 3.0) for at in range(5, 300, 5)))[-1]


def test_it_changes_its_mind_once_in_thirty_seconds() -> None:
    policy = FullGuardSettings(Amount(percent=5), resume_after=0.0)
    series = [(float(at), 1.0 if at % 10 else 9.0) for at in range(5, 200, 5)]
    found = played(*series, policy=policy)
    changes = [
        at for (at, _), (was, now) in zip(series[1:], pairwise(found), strict=True) if was != now
    ]
    assert len(changes) > 3
    assert all(later - earlier >= APART for earlier, later in pairwise(changes))


def test_without_a_measurement_the_decision_stays_and_is_stale() -> None:
    for free, full in ((1.0, True), (9.0, False)):
        watch = step(None, seen(free, 0.0), POLICY, EVERY, 0.0)
        for now in (5.0, 14.9):
            assert not step(watch, seen(free, 0.0), POLICY, EVERY, now).stale
        later = step(watch, seen(free, 0.0), POLICY, EVERY, MISSED * EVERY)
        assert (later.stale, later.full) == (True, full)


def test_a_gap_without_measurements_does_not_count_as_free() -> None:
    series: list[tuple[float, float | None]] = [(0.0, 1.0), (5.0, 9.0), (40.0, None), (41.0, 9.0)]
    series += [(41.0 + more, 9.0) for more in (5.0, 10.0, 15.0, 20.0, 25.0, 29.0, 30.0)]
    assert played(*series) == [True] * 10 + [False]


def test_time_alone_does_not_count_as_free() -> None:
    policy = FullGuardSettings(Amount(percent=5), resume_after=10.0)
    series: list[tuple[float, float | None]] = [(0.0, 1.0), (25.0, 9.0), (30.0, 9.0), (36.0, None)]
    assert played(*series, policy=policy) == [True] * 4
    assert played(*series, (37.0, 9.0), policy=policy)[-1] is False


def test_before_the_first_measurement_it_is_not_stale_at_once() -> None:
    first = step(None, seen(None, 0.0), POLICY, EVERY, 1000.0)
    assert not first.stale
    assert step(first, seen(None, 0.0), POLICY, EVERY, 1015.0).stale


def test_what_is_expected_counts_where_it_is_more() -> None:
    assert step(None, seen(30, 0.0, expected=39), POLICY, EVERY, 0.0).full
    assert not step(None, seen(30, 0.0, expected=38), POLICY, EVERY, 0.0).full
    assert step(None, seen(1, 0.0, expected=5), POLICY, EVERY, 0.0).full


def test_a_gpu_with_unknown_memory_is_never_full() -> None:
    assert played((0, None), (5, None), (500, None)) == [False] * 3


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 5.0, 14.9, 15.0, 29.9, 30.0]),
            st.none() | st.sampled_from([0.5, 1.9, 2.0, 3.0, 4.0, 4.1, 9.0]),
        ),
        max_size=60,
    ),
    st.sampled_from([0.0, 10.0, 30.0, 60.0]),
)
def test_the_rules_over_random_series(
    series: list[tuple[float, float | None]], resume_after: float
) -> None:
    """Each change is one that the whole history allows, and none that it demands is missing."""
    policy = FullGuardSettings(Amount(percent=5), resume_after=resume_after)
    now, changed = 0.0, float("-inf")
    watch = step(None, seen(None, 0.0), policy, EVERY, now)
    heard: list[tuple[float, float | None]] = []
    """Measurements, and None for each look that found none fresh."""
    last = seen(None, 0.0)
    for passed, free in series:
        now += passed
        if free is not None:
            last = seen(free, now)
            heard.append((now, free))
        fresh = max((at for at, one in heard if one is not None), default=0.0)
        stale = now - fresh >= MISSED * EVERY
        if stale:
            heard.append((now, None))
        before, watch = watch.full, step(watch, last, policy, EVERY, now)
        assert watch.stale == stale
        values = [one for _, one in heard]
        known = bool(values) and values[-1] is not None and not stale
        run = _clear_for(heard)
        may = known and now - changed >= APART
        fills = may and not before and values[-1] is not None and values[-1] < 2
        clears = may and before and run is not None and run >= resume_after
        assert watch.full == ((before or fills) and not clears)
        if watch.full != before:
            changed = now
            heard = heard[-1:] if watch.full else heard


def _clear_for(heard: list[tuple[float, float | None]]) -> float | None:
    """Seconds from the first to the last of the measurements that found more than 4 GiB free."""
    run: list[float] = []
    for at, free in heard:
        run = [*run, at] if free is not None and free > 4 else []
    return run[-1] - run[0] if run else None


# In the node. ------------------------------------------------------------------------------------


def sampled(of: Node, now: float, **used: float) -> Node:
    """The node after so many GiB were measured as used, by GPU (`g0`, `g1`)."""
    found = [Sample(uuid(int(name[1:])), int(size * GIB)) for name, size in used.items()]
    return advance(measured(of, found, now), now, 1000.0 + now)


def test_only_free_shares_of_the_full_gpu_are_withheld() -> None:
    known = checkpoint(holder({uuid(0): IntSet.of([0, 1])}, per_gpu=10))
    of = node(guarded(), [gpu(0), gpu(1)], known)
    before = list_message(pool_of(planned(of)))
    of = sampled(of, 5.0, g0=39, g1=3)
    found = planned(of)
    group = group_of(found, 0)
    assert (group.availability, group.healthy) == (Availability.WITHHELD, IntSet.of([0, 1]))
    assert group.reason == "full: 1GiB of 40GiB were free, memory_headroom is 5%"
    assert group.listed == IntSet.span(0, 10)
    assert group_of(found, 1).availability is Availability.AVAILABLE
    message = list_message(pool_of(found), before)
    assert message != before
    again = planned(sampled(of, 10.0, g0=39.5, g1=4))
    assert list_message(pool_of(again), message) is message


def test_off_it_withholds_nothing_and_a_reload_ends_it() -> None:
    of = sampled(node(guarded(), [gpu(0)]), 5.0, g0=40)
    assert group_of(planned(of), 0).availability is Availability.WITHHELD
    off = advance(evolve(of, sharing=guarded(full_guard=False)), 6.0, 1006.0)
    assert group_of(planned(off), 0).availability is Availability.AVAILABLE


def test_never_for_memory_shares() -> None:
    config = guarded(
        default=ShareTerms(POOL, 100, GIB),
        rules=(GpuRule(uuid(1), OTHER, 10),),
        injection=InjectionSettings(InjectionMethod.VOLUME_MOUNTS),
    )
    of = sampled(node(config, [gpu(0), gpu(1)]), 5.0, g0=40, g1=40)
    assert group_of(planned(of), 0).availability is Availability.AVAILABLE
    assert group_of(planned(of), 1, OTHER).availability is Availability.WITHHELD


def test_a_container_that_has_just_come_counts_with_what_is_expected() -> None:
    config = guarded(
        guard_settings=FullGuardSettings(Amount(percent=5), expected=20 * GIB, settle=120.0)
    )
    shares = {uuid(0): IntSet.of([0])}
    young = [evolve(holder({uuid(0): IntSet.of([n])}), since=950.0) for n in (1, 2)]
    for known, grants, full in (
        (checkpoint(), (), False),
        (checkpoint(young[0]), (), False),
        (checkpoint(*young), (), True),
        (checkpoint(young[0]), (grant(shares),), True),
        (checkpoint(evolve(young[0], shares=shares)), (grant(shares),), False),
        (checkpoint(young[0], evolve(young[1], since=0.0)), (), False),
        (checkpoint(young[0], evolve(young[1], since=884.0)), (), False),
    ):
        of = evolve(node(config, [gpu(0)], known), grants=grants)
        of = sampled(of, 5.0, g0=1)
        assert (group_of(planned(of), 0).availability is Availability.WITHHELD) == full


def test_a_decision_without_measurements_is_explained() -> None:
    of = sampled(node(guarded(), [gpu(0)]), 5.0, g0=40)
    assert planned(of).notes == ()
    assert next_turn(of, 5.0, 1005.0) == LATE
    turn = next_turn(of, 5.0 + LATE, 1005.0 + LATE)
    assert turn == MISSED * EVERY - LATE
    turn += LATE
    later = advance(of, 5.0 + turn, 1005.0 + turn)
    (note,) = planned(later).notes
    assert "not measured" in note
    assert "stays full" in note
    assert next_turn(later, 5.0 + turn, 1005.0 + turn) is None
