"""The health machine by example: each way of the diagram, and what sends a GPU along it."""

from __future__ import annotations

import pytest
from attrs import evolve

from sgpud.core.gpu.observations import EventKind, GpuEvent, Sample
from sgpud.core.health.causes import GONE, Cause, HealthPolicy, of_error, of_event, of_recovery
from sgpud.core.health.machine import EDGES, Health, HealthPhase, RecoverySign, TimePassed, step
from sgpud.core.health.xids import BY_NUMBER, TABLE_CLASSES, XIDS, Remedy
from tests.core.values import PASS, POLICY

UUID = PASS.uuid
LOST = of_error("GPU is lost (NVML error 15)")
RESET = Cause("XID 48", Remedy.RESET)
REBOOT = Cause("XID 79", Remedy.REBOOT)
HANG = Cause("hang", Remedy.PROBE)
TIME = TimePassed()
Thing = Cause | Sample | RecoverySign | TimePassed


def after(*history: tuple[float, Thing], health: Health | None = None) -> Health:
    """The health after things at certain times."""
    found = health or Health()
    for at, what in history:
        found = step(found, what, POLICY, at)
    return found


@pytest.mark.parametrize(
    ("history", "way"),
    [
        ([(0, HANG)], "healthy suspect"),
        ([(0, RESET)], "healthy unhealthy"),
        ([(0, evolve(PASS, recovery=4))], "healthy probation"),
        ([(0, HANG), (1, PASS)], "suspect healthy"),
        ([(0, HANG), (1, RecoverySign.WORD)], "suspect probation"),
        ([(0, HANG), (30, TIME)], "suspect unhealthy"),
        ([(0, LOST), (60, PASS)], "unhealthy probation"),
        (
            [(0, LOST), (60, PASS), (61, PASS), (62, PASS), (63, PASS)],
            "probation healthy",
        ),
        ([(0, LOST), (60, PASS), (61, HANG)], "probation suspect"),
        ([(0, LOST), (60, PASS), (61, REBOOT)], "probation unhealthy"),
    ],
)
def test_each_way(history: list[tuple[float, Thing]], way: str) -> None:
    before, now = after(*history[:-1]), after(*history)
    assert f"{before.phase.value} {now.phase.value}" == way


def test_the_ways_above_are_all_the_ways() -> None:
    marks = [mark for mark in test_each_way.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    shown = sorted(way for _, way in marks[0].args[1])
    assert shown == sorted(f"{edge.source.value} {edge.target.value}" for edge in EDGES)


def test_a_lost_gpu_comes_back_after_the_hold_down_and_three_passes() -> None:
    sick = after((0, LOST), (10, PASS), (59, PASS))
    assert sick.phase is HealthPhase.UNHEALTHY
    probation = after((60, PASS), (61, PASS), (62, PASS), health=sick)
    assert (probation.phase, probation.passes) == (HealthPhase.PROBATION, 2)
    assert after((63, PASS), health=probation).phase is HealthPhase.HEALTHY


def test_a_new_event_restarts_the_hold_down() -> None:
    assert after((0, LOST), (50, LOST), (60, PASS)).phase is HealthPhase.UNHEALTHY
    assert after((0, LOST), (50, LOST), (110, PASS)).phase is HealthPhase.PROBATION


def test_a_failed_probe_restarts_the_count() -> None:
    health = after((0, LOST), (60, PASS), (61, PASS), (62, PASS), (63, evolve(PASS, ecc=1)))
    assert (health.phase, health.passes) == (HealthPhase.PROBATION, 0)


GROWN = evolve(PASS, ecc=1)
PENDING, FAILED = (evolve(PASS, remap_pending=True, remap_failed=bad) for bad in (False, True))
CLEAR = evolve(PASS, remap_pending=False, remap_failed=False)


def test_more_uncorrected_errors_without_an_xid_drain_the_gpu() -> None:
    health = after((0, PASS), (1, GROWN))
    assert (health.phase, str(health.cause)) == (
        HealthPhase.PROBATION,
        "uncorrected ECC errors: 1 since the driver was loaded",
    )
    assert after((61, GROWN), (62, GROWN), (63, GROWN), health=health).phase is HealthPhase.HEALTHY
    assert after((0, GROWN)).phase is HealthPhase.HEALTHY  # counted before sgpud came


def test_a_pending_remapping_drains_the_gpu_until_the_reset() -> None:
    pending = after((0, PENDING), *((60 + at, PENDING) for at in range(9)))
    assert (pending.phase, pending.passes) == (HealthPhase.PROBATION, 0)
    assert after((100, CLEAR), (161, CLEAR), (162, CLEAR), (163, CLEAR), health=pending).phase is (
        HealthPhase.HEALTHY
    )


def test_a_failed_remapping_is_unhealthy_until_the_reset_is_seen() -> None:
    failed = after((0, FAILED), *((60 + at, FAILED) for at in range(9)))
    assert failed.phase is HealthPhase.UNHEALTHY
    assert after((100, CLEAR), health=failed).phase is HealthPhase.PROBATION


def test_what_a_counter_means_is_configured() -> None:
    ignoring = HealthPolicy(
        uncorrected_ecc=Remedy.IGNORE,
        row_remap_pending=Remedy.IGNORE,
        row_remap_failure=Remedy.IGNORE,
    )
    health = Health()
    for at, sample in enumerate((PASS, GROWN, PENDING, FAILED)):
        health = step(health, sample, ignoring, float(at))
    assert health.phase is HealthPhase.HEALTHY


def test_a_suspicion_in_probation_leads_back_to_probation() -> None:
    health = after((0, LOST), (60, PASS), (61, HANG), (62, PASS))
    assert health.phase is HealthPhase.PROBATION
    assert (
        after((100, PASS), (101, PASS), (102, PASS), health=health).phase is HealthPhase.PROBATION
    )
    assert after((121, PASS), (122, PASS), (123, PASS), health=health).phase is HealthPhase.HEALTHY


def test_three_falls_in_ten_minutes_double_the_hold_down() -> None:
    health = after((0, HANG), (1, PASS), (2, HANG), (3, PASS))
    assert health.phase is HealthPhase.HEALTHY
    health = after((4, HANG), (5, PASS), health=health)
    assert health.phase is HealthPhase.PROBATION
    waiting = after(*((float(at), PASS) for at in range(6, 124)), health=health)
    assert waiting.phase is HealthPhase.PROBATION
    assert after((124, PASS), health=waiting).phase is HealthPhase.HEALTHY


def test_falls_that_are_long_ago_count_no_more() -> None:
    health = after((0, HANG), (1, PASS), (2, HANG), (3, PASS), (602, HANG), (603, PASS))
    assert health.phase is HealthPhase.HEALTHY


@pytest.mark.parametrize(
    ("cause", "seen", "phase"),
    [
        (RESET, RecoverySign.DRIVER, HealthPhase.PROBATION),
        (RESET, RecoverySign.BOOT, HealthPhase.PROBATION),
        (RESET, RecoverySign.WORD, HealthPhase.PROBATION),
        (RESET, RecoverySign.BACK, HealthPhase.UNHEALTHY),
        (REBOOT, RecoverySign.DRIVER, HealthPhase.UNHEALTHY),
        (REBOOT, RecoverySign.BOOT, HealthPhase.PROBATION),
        (LOST, RecoverySign.DRIVER, HealthPhase.UNHEALTHY),
        (GONE, RecoverySign.BACK, HealthPhase.PROBATION),
        (LOST, RecoverySign.BACK, HealthPhase.UNHEALTHY),
    ],
)
def test_what_ends_a_cause(cause: Cause, seen: RecoverySign, phase: HealthPhase) -> None:
    assert after((0, cause), (1, seen)).phase is phase


def test_a_cause_that_needs_a_reset_never_heals_by_time_and_probes() -> None:
    probes = [(float(at), PASS) for at in range(1, 100_000, 1000)]
    assert after((0, RESET), *probes).phase is HealthPhase.UNHEALTHY


def test_a_recovery_action_that_is_none_again_ends_a_reset_and_a_reboot() -> None:
    for cause in (RESET, REBOOT):
        asked = after((0, cause), (1, evolve(PASS, recovery=1)))
        assert asked.phase is HealthPhase.UNHEALTHY
        assert after((2, PASS), health=asked).phase is HealthPhase.PROBATION


def test_a_recovery_action_that_never_was_another_ends_nothing() -> None:
    assert after((0, PASS), (1, RESET), (2, PASS), (500, PASS)).phase is HealthPhase.UNHEALTHY


@pytest.mark.parametrize(
    ("action", "phase"),
    [
        (0, HealthPhase.HEALTHY),
        (1, HealthPhase.UNHEALTHY),
        (2, HealthPhase.UNHEALTHY),
        (3, HealthPhase.PROBATION),
        (4, HealthPhase.PROBATION),
        (5, HealthPhase.PROBATION),
        (6, HealthPhase.UNHEALTHY),
        (7, HealthPhase.UNHEALTHY),
        (8, HealthPhase.HEALTHY),
    ],
)
def test_the_recovery_actions(action: int, phase: HealthPhase) -> None:
    assert after((0, evolve(PASS, recovery=action))).phase is phase


def test_what_the_driver_asks_to_drain_is_not_given_out_while_it_asks() -> None:
    asked = evolve(PASS, recovery=4)
    health = after(*((float(at), asked) for at in range(1000)))
    assert health.phase is HealthPhase.PROBATION
    healed = after(*((float(at), PASS) for at in range(1000, 1003)), health=health)
    assert healed.phase is HealthPhase.HEALTHY


def test_a_recovery_action_that_changes_is_looked_at_before_more_is_given_out() -> None:
    changed = of_event(GpuEvent(UUID, EventKind.XID, 154), None, POLICY)
    assert changed is not None
    asked = after((0, changed))
    assert asked.phase is HealthPhase.SUSPECT
    drained = after((1, evolve(PASS, recovery=4)), health=asked)
    assert drained.phase is HealthPhase.PROBATION
    again = after((2, changed), health=drained)
    assert (again.phase, again.cause) == (HealthPhase.PROBATION, drained.cause)


def test_a_boot_counts_as_served_once() -> None:
    booted = after((0, RESET), (1, RecoverySign.BOOT))
    assert booted.phase is HealthPhase.PROBATION
    again = after((2, RESET), (3, RecoverySign.BOOT), health=booted)
    assert (again.phase, again.cause and again.cause.remedy) == (
        HealthPhase.UNHEALTHY,
        Remedy.OPERATOR,
    )
    assert (
        after((4, RecoverySign.BOOT), (5, RecoverySign.DRIVER), health=again).phase
        is HealthPhase.UNHEALTHY
    )
    assert after((4, RecoverySign.WORD), health=again).phase is HealthPhase.PROBATION


def test_another_cause_after_a_boot_is_another_thing() -> None:
    assert (
        after((0, RESET), (1, RecoverySign.BOOT), (2, REBOOT), (3, RecoverySign.BOOT)).phase
        is HealthPhase.PROBATION
    )


def test_a_gpu_that_was_healthy_since_may_be_served_by_a_boot_again() -> None:
    well = after((0, RESET), (1, RecoverySign.BOOT), (61, PASS), (62, PASS), (63, PASS))
    assert well.phase is HealthPhase.HEALTHY
    assert after((64, RESET), (65, RecoverySign.BOOT), health=well).phase is HealthPhase.PROBATION


def test_heal_ends_the_hold_down_but_needs_good_probes() -> None:
    trusted = after((0, REBOOT), (1, RecoverySign.WORD))
    assert after((2, PASS), (3, PASS), health=trusted).phase is HealthPhase.PROBATION
    assert after((2, PASS), (3, PASS), (4, PASS), health=trusted).phase is HealthPhase.HEALTHY


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("GPU is lost (NVML error 15)", Remedy.WAIT),
        ("GPU has fallen off the bus", Remedy.WAIT),
        ("GPU requires restart (NVML error 16)", Remedy.RESET),
        ("Unknown Error (NVML error 999)", Remedy.PROBE),
        ("", Remedy.PROBE),
    ],
)
def test_nvml_errors(text: str, remedy: Remedy) -> None:
    assert of_error(text).remedy is remedy


def xid(
    number: int, compute: tuple[int, int] | None = (8, 0), policy: HealthPolicy = POLICY
) -> Remedy | None:
    cause = of_event(GpuEvent(UUID, EventKind.XID, number), compute, policy)
    return cause.remedy if cause else None


@pytest.mark.parametrize(
    ("remedy", "numbers"),
    [
        (Remedy.IGNORE, (13, 31, 43, 45, 68)),
        (Remedy.RESTART, (94,)),
        (Remedy.RESET, (48, 95, 109)),
        (Remedy.REBOOT, (79,)),
        (Remedy.PROBE, (154,)),
        (None, (0, 54, 149, 163, 9999, -1)),
    ],
)
def test_xids(remedy: Remedy | None, numbers: tuple[int, ...]) -> None:
    assert {xid(number) for number in numbers} == {remedy}


def test_xids_that_differ_by_architecture() -> None:
    assert xid(74, (9, 0)) is Remedy.RESET
    assert xid(74, (10, 0)) is None
    assert xid(143, (8, 0)) is None
    assert xid(143, (9, 0)) is Remedy.RESET
    assert xid(143, None) is Remedy.RESET


def test_the_configuration_wins_over_the_table() -> None:
    assert xid(79, policy=HealthPolicy(ignore=(79,))) is Remedy.IGNORE
    assert xid(13, policy=HealthPolicy(reset=(13,))) is Remedy.RESET
    assert xid(9999, policy=HealthPolicy(reboot=(9999,))) is Remedy.REBOOT
    assert xid(154, policy=HealthPolicy(ignore=(154,))) is Remedy.IGNORE


def test_the_table_names_each_xid_once_with_class_and_source() -> None:
    assert len(BY_NUMBER) == len(XIDS)
    for entry in XIDS:
        assert entry.remedy in TABLE_CLASSES
        assert entry.meaning
        assert entry.source.startswith("https://")
        assert entry.first <= entry.last


def test_an_unknown_recovery_action_is_not_a_cause() -> None:
    assert of_recovery(8) is None
    assert of_recovery(0) is None
