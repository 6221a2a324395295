"""Who overuses memory, since when, and who would be stopped: never one within its grant."""

from __future__ import annotations

from random import Random

import pytest
from attrs import evolve

from sgpud.core.gpu.attribution import Container
from sgpud.core.limits.overuse import (
    LARGEST,
    SMALLER,
    GpuMemorySample,
    MemoryUse,
    OveruseState,
    allowance,
    step,
)
from sgpud.core.limits.settings import LimitSettings, OveruseAction
from sgpud.core.units import Amount
from tests.core.limits.overuse_histories import (
    ALICE,
    BOB,
    EVERY,
    GAP,
    MIB,
    history,
    sample,
    use,
)
from tests.core.values import GIB

SETTINGS = LimitSettings()


def after(
    seconds: float, *uses: MemoryUse, settings: LimitSettings = SETTINGS, **more: int | None
) -> OveruseState:
    """The state after samples that all found this, for so long."""
    state, at = None, 0.0
    while at <= seconds:
        state = step(state, sample(at, *uses, **more), settings, GAP)
        at += EVERY
    assert state is not None
    return state


def test_a_container_overuses_once_every_sample_of_over_for_found_it_over() -> None:
    over = use(ALICE, 9 * GIB)
    early = after(25.0, over)
    assert (early.overusers, early.victim) == ({}, None)
    state = after(30.0, over)
    assert (state.victim, state.overusers[ALICE].size) == (ALICE, GIB)
    assert state.overusers[ALICE].verdict == LARGEST


def test_within_grant_and_tolerance_there_is_no_overuse() -> None:
    for used in (0, 8 * GIB, 8 * GIB + 512 * MIB):
        assert after(600.0, use(ALICE, used)).over == {}
    assert after(30.0, use(ALICE, 8 * GIB + 512 * MIB + 1)).victim == ALICE


def test_one_sample_without_it_begins_the_time_again() -> None:
    for calm in (
        sample(30.0, use(ALICE, 8 * GIB)),
        sample(30.0, use(ALICE, None)),
        sample(30.0),
        sample(30.0, use(ALICE, 9 * GIB), used=30 * GIB),
        sample(30.0, use(ALICE, 9 * GIB), used=None),
    ):
        state = step(after(25.0, use(ALICE, 9 * GIB)), calm, SETTINGS, GAP)
        assert not state.overusers
        state = step(state, sample(35.0, use(ALICE, 9 * GIB)), SETTINGS, GAP)
        assert state.over[ALICE].since == 35.0


def test_a_pause_of_the_samples_begins_the_time_again() -> None:
    state = step(after(25.0, use(ALICE, 9 * GIB)), sample(41.0, use(ALICE, 9 * GIB)), SETTINGS, GAP)
    assert state.over[ALICE].since == 41.0


def test_the_same_sample_again_changes_nothing() -> None:
    state = after(30.0, use(ALICE, 9 * GIB))
    assert step(state, sample(30.0), SETTINGS, GAP) is state


def test_without_pressure_nobody_lacks_memory() -> None:
    assert after(600.0, use(ALICE, 20 * GIB), used=38 * GIB).over == {}
    always = evolve(SETTINGS, pressure=None)
    assert after(30.0, use(ALICE, 9 * GIB), used=9 * GIB, settings=always).victim == ALICE
    assert after(30.0, use(ALICE, 9 * GIB), used=None, settings=always).victim == ALICE
    size = evolve(SETTINGS, pressure=Amount(10 * GIB))
    assert after(30.0, use(ALICE, 9 * GIB), used=11 * GIB, settings=size).victim == ALICE


def test_the_largest_excess_is_the_one_to_stop_not_the_largest_use() -> None:
    state = after(30.0, use(ALICE, 21 * GIB, 20 * GIB), use(BOB, 6 * GIB, 2 * GIB))
    assert state.victim == BOB
    assert {name: one.verdict for name, one in state.overusers.items()} == {
        ALICE: SMALLER,
        BOB: LARGEST,
    }


@pytest.mark.parametrize(
    ("container", "pod", "says"),
    [
        (("0123456789abcdef0123456789abcdef", "main"), "team/web", "a static pod"),
        (("u-1", "main"), "kube-system/dcgm", '"kube-system/*"'),
        (("u-1", "main"), "", "not known yet"),
    ],
)
def test_who_is_spared_is_reported_but_not_chosen(
    container: Container, pod: str, says: str
) -> None:
    spared = use(container, 20 * GIB, pod=pod)
    state = after(30.0, spared)
    assert state.victim is None
    assert says in state.overusers[container].verdict
    assert after(30.0, spared, use(BOB, 9 * GIB)).victim == BOB


def test_who_is_spared_at_the_api_server_is_not_chosen_either() -> None:
    spared = evolve(use(ALICE, 20 * GIB), spared="a critical pod")
    state = after(30.0, spared, use(BOB, 9 * GIB))
    assert state.victim == BOB
    assert state.overusers[ALICE].verdict == "it is spared: a critical pod"


def test_the_verdict_of_the_largest_says_what_comes_of_it() -> None:
    evict = evolve(SETTINGS, overuse=OveruseAction.EVICT)
    for settings, says in (
        (evict, "; without [limits] dry_run its pod would be evicted"),
        (
            evolve(evict, dry_run=False),
            "; its pod is evicted, 1m after any other one for this GPU at the earliest",
        ),
    ):
        state = after(30.0, use(ALICE, 9 * GIB), settings=settings)
        assert state.overusers[ALICE].verdict == LARGEST + says


def test_what_was_granted_is_memory_and_for_places_what_is_expected() -> None:
    assert allowance([4 * GIB, GIB], 0) == 5 * GIB
    assert allowance([4 * GIB], GIB) == 4 * GIB
    assert allowance([0], 0) is None
    assert allowance([0], 2 * GIB) == 2 * GIB
    assert allowance([4 * GIB, 0], 2 * GIB) == 6 * GIB
    assert allowance([4 * GIB, 0], 0) is None


class Model:
    """The rule in its own words: since when each container has been over, in every sample."""

    def __init__(self, settings: LimitSettings) -> None:
        self.settings = settings
        self.since: dict[Container, float] = {}
        self.at = 0.0

    def able(self, seen: GpuMemorySample) -> dict[Container, int]:
        """Those that could be stopped after this sample, and their excess."""
        settings = self.settings
        if seen.at - self.at > GAP:
            self.since = {}
        self.at = seen.at
        pressure = settings.pressure
        full = pressure is None or (seen.used is not None and seen.used > pressure.of(seen.total))
        known = {each.container: each for each in seen.uses if each.used is not None}
        over = {
            name: each.used - each.granted
            for name, each in known.items()
            if full and each.used is not None and each.used > each.granted + settings.tolerance
        }
        self.since = {name: self.since.get(name, seen.at) for name in over}
        return {
            name: excess
            for name, excess in over.items()
            if seen.at - self.since[name] >= settings.over_for
            and "-" in name[0]
            and known[name].pod
            and not (settings.spare and known[name].pod.startswith("kube-system/"))
        }


def test_in_10_000_histories_no_victim_is_within_its_grant_and_none_is_missed() -> None:
    random = Random(615)  # noqa: S311 - a history, not a key
    chosen = 0
    for number in range(10_000):
        settings, samples = history(random)
        model, state = Model(settings), None
        for seen in samples:
            state = step(state, seen, settings, GAP)
            able = model.able(seen)
            if state.victim is None:
                assert not able, (number, seen)
                continue
            chosen += 1
            assert able[state.victim] == max(able.values()), (number, seen)
            assert able[state.victim] > settings.tolerance, (number, seen)
    assert chosen > 1000, "the histories are not all calm"
