"""What the healths of a node's GPUs do to its shares, and which GPUs an observation concerns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.gpu.observations import EventKind, GpuEvent, Sample
from sgpud.core.health.causes import GONE, HealthPolicy
from sgpud.core.health.machine import Health, HealthPhase
from sgpud.core.health.node_health import (
    KEPT,
    booted,
    cordoned,
    find,
    gpus_seen,
    healed,
    health_of,
    heard,
    last_known,
    probe_failed,
    resumed,
    sampled,
    verdict,
)
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import LATE, advance, next_turn
from sgpud.core.planning.node import Node, Trust
from sgpud.core.planning.plan import Availability, GpuShares
from sgpud.core.sharing.rules import InjectionMethod, InjectionSettings
from tests.core.values import (
    checkpoint,
    gpu,
    group_of,
    holder,
    mig,
    node,
    planned,
    pool_of,
    sharing,
)
from tests.core.values import uuid as uuid_of
from tools.health_page import ROWS

A, B = gpu(0, compute=(8, 0)), gpu(1, compute=(8, 0))
HELD = IntSet.of([1])
SHARING = sharing(injection=InjectionSettings(InjectionMethod.NVIDIA_RUNTIME))


def pair(**facts: Any) -> Node:
    """Two GPUs with four shares each; number 1 of the first is held."""
    return evolve(node(SHARING, (A, B), checkpoint(holder({A.uuid: HELD}, per_gpu=4))), **facts)


def xid(number: int, of: str = A.uuid, gi: int | None = None, ci: int | None = None) -> GpuEvent:
    return GpuEvent(of, EventKind.XID, number, gi, ci)


def passed(of: str = A.uuid) -> Sample:
    return Sample(of, 1, 2, 0, 0, 0)


def first(of: Node) -> GpuShares:
    return group_of(planned(advance(of, 0.0, 1000.0)), 0)


def test_the_table_of_states() -> None:
    """Each row of the table in docs/health.md is so: what is listed of a GPU in each state."""
    of = pair()
    rows = {
        "healthy": of,
        "ignore": heard(of, xid(13), 0.0),
        "restart": heard(of, xid(94), 0.0),
        "unknown": heard(of, xid(9999), 0.0),
        "suspect": heard(of, GpuEvent(A.uuid, EventKind.HANG), 0.0),
        "reset": heard(of, xid(48), 0.0),
        "reboot": heard(of, xid(79), 0.0),
        "ecc": heard(of, GpuEvent(A.uuid, EventKind.ECC), 0.0),
        "lost": heard(of, GpuEvent(A.uuid, EventKind.ERROR, detail="GPU is lost"), 0.0),
        "probation": healed(heard(of, xid(79), 0.0), A.uuid, 0.0),
        "cordoned": cordoned(of, A.uuid, on=True),
        "uncordoned": cordoned(cordoned(of, A.uuid, on=True), A.uuid, on=False),
    }
    every, none = IntSet.span(0, 4), IntSet()
    listed = {name: (first(row).healthy, first(row).availability) for name, row in rows.items()}
    assert listed == {
        **dict.fromkeys(
            ("healthy", "ignore", "restart", "unknown", "uncordoned"), (every, AVAILABLE)
        ),
        **dict.fromkeys(("suspect", "probation", "cordoned"), (HELD, WITHHELD)),
        **dict.fromkeys(("reset", "reboot", "ecc", "lost"), (none, UNHEALTHY)),
    }
    words = {"Healthy": (1, 1), "withheld": (0, 1), "Unhealthy": (0, 0)}
    for name, _, free, held in ROWS:
        healthy = first(rows[name]).healthy
        is_so = (bool(healthy - HELD), bool(healthy & HELD))
        assert words[free] == is_so, (name, held)
        assert held.startswith("Healthy") is is_so[1]
    for row in rows.values():
        assert first(row).active == every
        assert first(row).held == HELD
        assert group_of(planned(row), 1).availability is AVAILABLE


AVAILABLE, WITHHELD, UNHEALTHY = (
    Availability.AVAILABLE,
    Availability.WITHHELD,
    Availability.UNHEALTHY,
)


def test_every_availability_but_available_has_a_reason() -> None:
    assert first(heard(pair(), xid(79), 0.0)).reason == "XID 79: the GPU has fallen off the bus"
    assert "cordoned" in first(cordoned(pair(), A.uuid, on=True)).reason
    assert first(pair()).reason == ""


def test_an_observation_of_an_unknown_gpu_is_ignored() -> None:
    of = pair()
    assert heard(of, xid(79, uuid_of(7)), 0.0) is of
    assert sampled(of, [Sample(uuid_of(7), error="odd")], 0.0) is of


def test_a_passing_probe_leaves_a_healthy_gpu_unchanged() -> None:
    of = sampled(pair(), [passed()], 0.0)
    assert sampled(of, [passed()], 5.0) is of


# MIG. --------------------------------------------------------------------------------------------

ONE, TWO = mig(A, 1), mig(A, 2)


def split() -> Node:
    return node(SHARING, (ONE, TWO, B))


def availabilities(of: Node) -> dict[str, Availability]:
    return {group.uuid: group.availability for group in pool_of(planned(of)).groups}


def test_an_unhealthy_gpu_makes_all_its_instances_unhealthy() -> None:
    of = heard(split(), xid(79), 0.0)
    assert availabilities(of) == {ONE.uuid: UNHEALTHY, TWO.uuid: UNHEALTHY, B.uuid: AVAILABLE}


def test_an_event_of_an_instance_concerns_that_instance_alone() -> None:
    of = heard(split(), xid(95, gi=1, ci=0), 0.0)
    assert availabilities(of) == {ONE.uuid: UNHEALTHY, TWO.uuid: AVAILABLE, B.uuid: AVAILABLE}


@pytest.mark.parametrize("gi", [0, 9])
def test_an_event_of_an_instance_that_is_not_there_concerns_the_whole_gpu(gi: int) -> None:
    """Drivers name instance 0 on GPUs without MIG, and instances that have just gone."""
    of = heard(split(), xid(79, gi=gi, ci=0), 0.0)
    assert availabilities(of) == {ONE.uuid: UNHEALTHY, TWO.uuid: UNHEALTHY, B.uuid: AVAILABLE}
    whole = heard(node(SHARING, [A, B]), xid(79, gi=gi, ci=0), 0.0)
    assert availabilities(whole) == {A.uuid: UNHEALTHY, B.uuid: AVAILABLE}


def test_an_event_of_a_gpu_instance_concerns_all_its_compute_instances() -> None:
    pieces = (mig(A, 1, 0), mig(A, 1, 1), mig(A, 2, 0))
    of = heard(node(SHARING, pieces), xid(95, gi=1), 0.0)
    assert [health_of(of, each.uuid).phase for each in pieces] == [
        HealthPhase.UNHEALTHY,
        HealthPhase.UNHEALTHY,
        HealthPhase.HEALTHY,
    ]


def test_a_reset_of_the_gpu_is_one_of_its_instances() -> None:
    of = heard(split(), xid(95, gi=1, ci=0), 0.0)
    of = sampled(of, [evolve(passed(), recovery=1)], 1.0)
    of = sampled(of, [passed()], 2.0)
    assert health_of(of, ONE.uuid).phase is HealthPhase.PROBATION
    assert health_of(of, A.uuid).phase is HealthPhase.PROBATION


def test_a_cordon_of_the_gpu_is_one_of_its_instances() -> None:
    of = cordoned(split(), A.uuid, on=True)
    assert availabilities(of) == {ONE.uuid: WITHHELD, TWO.uuid: WITHHELD, B.uuid: AVAILABLE}


def test_cordon_and_heal_of_a_gpu_apply_to_its_instances() -> None:
    of = heard(split(), xid(95, gi=1, ci=0), 0.0)
    assert health_of(healed(of, A.uuid, 1.0), ONE.uuid).phase is HealthPhase.PROBATION


# GPUs that come and go. --------------------------------------------------------------------------


def test_a_gpu_that_vanishes_is_withdrawn_and_on_probation_when_it_returns() -> None:
    gone = advance(gpus_seen(pair(), (B,), "1", 1.0), 1.0, 1001.0)
    assert gone.gpus == (B,)
    assert first(gone).availability is UNHEALTHY
    assert first(gone).held == HELD
    back = gpus_seen(gone, (A, B), "1", 2.0)
    assert health_of(back, A.uuid).phase is HealthPhase.PROBATION
    assert first(back).healthy == HELD


@pytest.mark.parametrize("number", [48, 79])
def test_an_unhealthy_gpu_that_becomes_unreadable_stays_listed(number: int) -> None:
    of = gpus_seen(heard(pair(), xid(number), 0.0), (B,), "1", 1.0)
    assert of.gpus == (A, B)
    assert first(of).availability is UNHEALTHY


def test_a_suspect_gpu_that_is_left_out_is_unhealthy_after_thirty_seconds() -> None:
    of = heard(pair(), GpuEvent(A.uuid, EventKind.HANG), 10.0)
    of = gpus_seen(of, (B,), "1", 11.0)
    assert first(of).availability is WITHHELD
    assert next_turn(of, 11.0, 1000.0) == pytest.approx(29.0)
    late = advance(of, 40.0, 1040.0)
    assert group_of(planned(late), 0).availability is UNHEALTHY
    assert advance(late, 40.0, 1040.0) == late


def test_the_instances_of_an_unhealthy_gpu_stay_listed() -> None:
    of = gpus_seen(heard(split(), xid(79), 0.0), (B,), "1", 1.0)
    assert of.gpus == (ONE, TWO, B)


def test_instances_removed_by_a_reset_go_once_their_gpu_recovers() -> None:
    of = sampled(heard(split(), xid(48), 0.0), [evolve(passed(), recovery=1)], 1.0)
    of = gpus_seen(of, (B,), "1", 2.0)
    assert of.gpus == (ONE, TWO, B)
    of = sampled(gpus_seen(of, (A, B), "1", 3.0), [passed()], 4.0)
    assert of.gpus == (A, B)
    assert health_of(of, A.uuid).phase is HealthPhase.PROBATION
    assert {one.uuid: health_of(of, one.uuid).cause for one in (ONE, TWO)} == {
        ONE.uuid: GONE,
        TWO.uuid: GONE,
    }


def test_an_unreadable_gpu_that_is_declared_healthy_is_removed() -> None:
    of = gpus_seen(heard(pair(), xid(79), 0.0), (B,), "1", 1.0)
    of = advance(healed(of, A.uuid, 2.0), 2.0, 1002.0)
    assert of.gpus == (B,)
    assert first(of).availability is UNHEALTHY
    assert first(of).held == HELD


def test_another_driver_has_reset_the_gpus() -> None:
    of = heard(pair(driver="550"), xid(48), 0.0)
    assert health_of(gpus_seen(of, (A, B), "550", 1.0), A.uuid).phase is HealthPhase.UNHEALTHY
    assert health_of(gpus_seen(of, (A, B), "560", 1.0), A.uuid).phase is HealthPhase.PROBATION


def test_a_driver_that_was_unloaded_has_reset_the_gpus() -> None:
    of = heard(pair(driver="550"), xid(48), 0.0)
    hung = probe_failed(of, "hung", driver_gone=False)
    assert health_of(gpus_seen(hung, (A, B), "550", 1.0), A.uuid).phase is HealthPhase.UNHEALTHY
    gone = probe_failed(of, "not loaded", driver_gone=True)
    back = gpus_seen(gone, (A, B), "550", 1.0)
    assert health_of(back, A.uuid).phase is HealthPhase.PROBATION
    assert (back.driver_gone, back.probe_problem) == (False, "")


def test_without_a_probe_gpus_are_unknown_and_not_unhealthy() -> None:
    of = probe_failed(pair(), "no driver", driver_gone=True)
    assert (first(of).availability, first(of).reason) == (WITHHELD, "no driver")
    assert first(of).healthy == HELD


def test_gpus_that_have_gone_are_forgotten_in_the_end() -> None:
    of = pair()
    for number in range(100, 100 + 2 * KEPT):
        of = gpus_seen(of, (A, B, gpu(number)), "1", float(number))
    assert len(of.healths) <= KEPT + 2


# Known from before. ------------------------------------------------------------------------------


def start(policy: HealthPolicy | None = None) -> Node:
    return Node(
        SHARING,
        checkpoint=checkpoint(holder({A.uuid: HELD}, per_gpu=4)),
        policy=policy or HealthPolicy(),
    )


def test_the_last_known_gpus_are_listed_with_what_is_held_until_a_probe_has_answered() -> None:
    of = advance(last_known(start(), (A, B), "1", 0.0), 0.0, 1000.0)
    assert of.trust is Trust.LAST_KNOWN
    assert (first(of).availability, first(of).healthy) == (WITHHELD, HELD)
    confirmed = gpus_seen(of, (A, B), "1", 1.0)
    assert first(confirmed).availability is AVAILABLE


def test_what_the_probe_denies_goes_by_the_two_steps() -> None:
    of = advance(last_known(start(), (A, B), "1", 0.0), 0.0, 1000.0)
    denied = advance(gpus_seen(of, (B,), "1", 1.0), 1.0, 1001.0)
    assert first(denied).availability is UNHEALTHY
    assert first(denied).held == HELD


def test_a_gpu_that_no_probe_confirms_in_time_is_unhealthy() -> None:
    of = advance(last_known(start(), (A, B), "1", 0.0), 0.0, 1000.0)
    of = probe_failed(of, "no driver", driver_gone=True)
    assert next_turn(of, LATE, 1000.0) == pytest.approx(120.0 - LATE)
    assert first(advance(of, 119.0, 1119.0)).availability is WITHHELD
    late = advance(of, 120.0, 1120.0)
    assert group_of(planned(late), 0).availability is UNHEALTHY
    assert first(gpus_seen(late, (A, B), "1", 130.0)).availability is AVAILABLE


def test_a_gpu_last_known_unhealthy_is_not_trusted() -> None:
    found = {A.uuid: health_of(heard(pair(), xid(79), 0.0), A.uuid)}
    of = advance(resumed(last_known(start(), (A, B), "1", 0.0), found), 0.0, 1000.0)
    assert first(of).availability is UNHEALTHY
    after = booted(found, of, 0.0)
    of = advance(resumed(last_known(start(), (A, B), "1", 0.0), after), 0.0, 1000.0)
    assert (first(of).availability, first(of).healthy) == (WITHHELD, HELD)


def test_nothing_is_trusted_if_configured_or_after_a_probe() -> None:
    assert last_known(start(HealthPolicy(trust_last_known=False)), (A,), "1", 0.0).gpus is None
    of = gpus_seen(start(), (B,), "1", 0.0)
    assert last_known(of, (A, B), "1", 0.0).gpus == (B,)


def test_of_two_healths_the_worse_one_counts_and_the_saved_cordon() -> None:
    sick = heard(pair(), xid(79), 0.0)
    for of, saved in ((pair(), sick.healths), (sick, {A.uuid: Health()})):
        assert health_of(resumed(of, saved), A.uuid).phase is HealthPhase.UNHEALTHY
    held_back = resumed(pair(), {A.uuid: Health(cordoned=True)})
    assert health_of(held_back, A.uuid).cordoned


def test_a_gpu_is_found_by_uuid_and_by_index() -> None:
    of = split()
    assert find(of, "0") == (A.uuid,)
    assert find(of, ONE.uuid) == (ONE.uuid,)
    assert find(of, A.uuid) == (A.uuid,)
    assert find(of, "7") == ()
    assert find(of, "nonsense") == ()


# Whatever happens. -------------------------------------------------------------------------------

EVENTS = [
    xid(13),
    xid(48),
    xid(79),
    xid(154),
    xid(95, gi=1, ci=0),
    GpuEvent(A.uuid, EventKind.HANG),
    GpuEvent(A.uuid, EventKind.ERROR, detail="GPU is lost"),
    GpuEvent(B.uuid, EventKind.ECC),
]
Change = Callable[[Node, float], Node]
changes: st.SearchStrategy[Change] = st.one_of(
    st.sampled_from(EVENTS).map(lambda event: lambda node, now: heard(node, event, now)),
    st.builds(
        Sample,
        st.sampled_from([A.uuid, B.uuid, ONE.uuid]),
        recovery=st.sampled_from([None, 0, 1, 4]),
        error=st.sampled_from(["", "odd"]),
    ).map(lambda sample: lambda node, now: sampled(node, [sample], now)),
    st.sampled_from([(A, B), (B,), (A,), (ONE, TWO, B), ()]).map(
        lambda gpus: lambda node, now: gpus_seen(node, gpus, "1", now)
    ),
    st.booleans().map(
        lambda gone: lambda node, _: probe_failed(node, "no probe", driver_gone=gone)
    ),
    st.booleans().map(lambda on: lambda node, _: cordoned(node, A.uuid, on=on)),
    st.just(lambda node, now: healed(node, A.uuid, now)),
)


@given(st.lists(st.tuples(st.sampled_from([0.0, 5.0, 31.0, 61.0, 200.0]), changes), max_size=30))
def test_held_shares_stay_listed_and_healthy_unless_their_gpu_is_unhealthy(
    history: list[tuple[float, Change]],
) -> None:
    held = {A.uuid: IntSet.of([1, 2]), B.uuid: HELD, ONE.uuid: HELD}
    of, now = node(SHARING, (A, B), checkpoint(holder(held, per_gpu=4))), 0.0
    for wait, change in history:
        now += wait
        of = advance(change(of, now), now, 1000.0 + now)
        assert advance(of, now, 1000.0 + now) == of
        groups = {group.uuid: group for group in pool_of(planned(of, 1000.0 + now)).groups}
        for uuid, numbers in held.items():
            group = groups[uuid]
            assert group.held == numbers
            assert numbers - group.active == IntSet()
            sick = group.gpu is None or bool(verdict(of, group.gpu).unhealthy)
            assert (group.availability is UNHEALTHY) == sick
            assert (group.healthy & numbers) == (IntSet() if sick else numbers)
            assert sick or group.availability is AVAILABLE or group.healthy == numbers
