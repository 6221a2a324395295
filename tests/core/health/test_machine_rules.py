"""The rules of the health machine, over random histories of one GPU."""

from __future__ import annotations

from itertools import pairwise

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.gpu.observations import Sample
from sgpud.core.health.causes import GONE, Cause, HealthPolicy
from sgpud.core.health.machine import (
    EDGES,
    FLAPS,
    PASSES,
    SUSPECT_FOR,
    Health,
    HealthPhase,
    RecoverySign,
    TimePassed,
    step,
)
from sgpud.core.health.xids import Remedy

UUID = "GPU-00000000-0000-4000-8000-000000000000"
POLICY = HealthPolicy(hold_down=60.0)
WORSE = (HealthPhase.HEALTHY, HealthPhase.PROBATION, HealthPhase.SUSPECT, HealthPhase.UNHEALTHY)

causes = st.one_of(
    st.builds(Cause, st.sampled_from(["XID 48", "XID 79", "lost"]), st.sampled_from(Remedy)),
    st.just(GONE),
)
samples = st.builds(
    Sample,
    uuid=st.just(UUID),
    recovery=st.sampled_from([None, None, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 99]),
    ecc=st.sampled_from([None, 0, 0, 0, 1, 2]),
    error=st.sampled_from(["", "", "", "GPU is lost (NVML error 15)", "odd (NVML error 999)"]),
)
passing = st.just(Sample(UUID, 1, 2, 0, 0, 0))
things = st.one_of(
    causes, samples, passing, passing, st.sampled_from(RecoverySign), st.just(TimePassed())
)
Thing = Cause | Sample | RecoverySign | TimePassed
moments = st.sampled_from([0.0, 0.5, 5.0, 29.9, 30.0, 59.9, 60.0, 61.0, 500.0, 700.0])
histories = st.lists(st.tuples(moments, things), max_size=40)


@frozen
class Step:
    """One step of a history."""

    at: float
    what: Thing
    before: Health
    after: Health

    @property
    def moved(self) -> bool:
        return self.before.phase is not self.after.phase


def lived(history: list[tuple[float, Thing]], policy: HealthPolicy = POLICY) -> list[Step]:
    """What such a history does; after each thing the time is looked at, as the node does."""
    now, health, steps = 1000.0, Health(), []
    for wait, what in history:
        now += wait
        for one in (TimePassed(), what):
            after = step(health, one, policy, now)
            steps.append(Step(now, one, health, after))
            health = after
    return steps


def passes(one: Step) -> bool:
    """Whether this was a probe that says that all is well."""
    if not isinstance(one.what, Sample) or one.what.error or one.what.recovery:
        return False
    grown = None not in (one.before.ecc, one.what.ecc) and one.what.ecc > one.before.ecc  # type: ignore[operator]
    return not grown


@given(histories)
def test_every_way_is_in_the_diagram(history: list[tuple[float, Thing]]) -> None:
    ways = {(edge.source, edge.target) for edge in EDGES}
    for one in lived(history):
        # A probe may tell of a new cause and pass in the same moment; never the other way round.
        assert not one.moved or (one.before.phase, one.after.phase) in ways


@given(histories)
def test_nothing_but_a_probe_that_passes_makes_it_healthy(
    history: list[tuple[float, Thing]],
) -> None:
    steps = lived(history)
    for number, one in enumerate(steps):
        if not one.moved or one.after.phase is not HealthPhase.HEALTHY:
            continue
        assert passes(one)
        if one.before.phase is HealthPhase.PROBATION:
            began = max(i for i, each in enumerate(steps[:number]) if each.moved)
            since = steps[began + 1 : number + 1]
            probes = [each for each in since if isinstance(each.what, Sample)]
            assert len(probes) >= PASSES
            assert all(passes(each) for each in probes[-PASSES:])


@given(histories)
def test_a_hold_down_passes_before_it_is_given_out_again(
    history: list[tuple[float, Thing]],
) -> None:
    steps = lived(history)
    for number, one in enumerate(steps):
        if (
            one.moved
            and one.after.phase is HealthPhase.HEALTHY
            and one.before.phase is HealthPhase.PROBATION
        ):
            last = max(i for i, each in enumerate(steps[:number]) if _fell(each))
            if not any(each.what is RecoverySign.WORD for each in steps[last:number]):
                assert one.at - steps[last].at >= POLICY.hold_down


def _fell(one: Step) -> bool:
    return (
        one.moved
        and one.after.phase in (HealthPhase.UNHEALTHY, HealthPhase.SUSPECT, HealthPhase.PROBATION)
        and (WORSE.index(one.after.phase) > WORSE.index(one.before.phase))
    )


@given(histories)
def test_a_cause_ends_by_what_it_takes_and_never_by_time(
    history: list[tuple[float, Thing]],
) -> None:
    for one in lived(history):
        cause = one.before.cause
        if one.before.phase is not HealthPhase.UNHEALTHY or not one.moved or cause is None:
            continue
        told = isinstance(one.what, Sample) and one.what.recovery == 0 and one.before.recovery
        ended = {
            Remedy.RESET: one.what
            in (RecoverySign.DRIVER, RecoverySign.RESET, RecoverySign.BOOT, RecoverySign.WORD)
            or told,
            Remedy.REBOOT: one.what in (RecoverySign.RESET, RecoverySign.BOOT, RecoverySign.WORD)
            or told,
            Remedy.OPERATOR: one.what is RecoverySign.WORD,
            Remedy.WAIT: passes(one)
            or one.what in (RecoverySign.BOOT, RecoverySign.BACK, RecoverySign.WORD),
        }
        assert ended[cause.remedy]
        assert one.after.phase is HealthPhase.PROBATION


@given(histories)
def test_time_makes_nothing_better_and_ends_a_suspicion(
    history: list[tuple[float, Thing]],
) -> None:
    for one in lived(history):
        if isinstance(one.what, TimePassed):
            assert WORSE.index(one.after.phase) >= WORSE.index(one.before.phase)
            assert step(one.after, TimePassed(), POLICY, one.at) == one.after
            if one.after.phase is HealthPhase.SUSPECT:
                assert one.at - one.after.since < SUSPECT_FOR


@given(histories)
def test_what_hits_only_an_application_changes_nothing(
    history: list[tuple[float, Thing]],
) -> None:
    for one in lived(history):
        if isinstance(one.what, Cause) and one.what.remedy in (Remedy.IGNORE, Remedy.RESTART):
            assert one.after == one.before


@given(histories)
def test_what_is_not_healthy_has_a_cause_and_what_is_has_none(
    history: list[tuple[float, Thing]],
) -> None:
    for one in lived(history):
        assert (one.after.cause is None) == (one.after.phase is HealthPhase.HEALTHY)


@given(histories)
def test_a_cause_only_gives_way_to_a_worse_one(history: list[tuple[float, Thing]]) -> None:
    for before, after in pairwise(lived(history)):
        if before.after.phase is after.after.phase is HealthPhase.UNHEALTHY:
            was, now = before.after.cause, after.after.cause
            assert was is not None
            assert now is not None
            assert now == was or now.remedy.weight > was.remedy.weight or was == GONE


@given(histories, st.integers(0, 39))
def test_the_operator_s_cordon_is_left_alone(history: list[tuple[float, Thing]], seed: int) -> None:
    health = Health(cordoned=True)
    for number, (wait, what) in enumerate(history):
        health = step(health, what, POLICY, wait + number * seed)
        assert health.cordoned


def test_ten_thousand_events_leave_no_more_behind_than_one() -> None:
    health = Health()
    for number in range(10_000):
        health = step(health, Cause(f"XID {number}", Remedy.RESET), POLICY, number / 1000)
        health = step(health, RecoverySign.WORD, POLICY, number / 1000)
    assert len(health.falls) <= FLAPS
    assert health.stretch <= 64
