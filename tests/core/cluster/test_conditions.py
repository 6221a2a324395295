"""The condition of the Node and the Events of a GPU that falls sick and recovers."""

from __future__ import annotations

from attrs import evolve

from sgpud.core.cluster.conditions import (
    SHOWN,
    condition_document,
    health_events,
    node_condition,
    unhealthy_gpus,
)
from sgpud.core.cluster.events import EventType
from sgpud.core.health.node_health import cordoned
from sgpud.core.planning.node import Node
from tests.core.dra.worlds import places
from tests.core.values import fallen, uuid

NOW = 1_700_000_000.0


def test_a_healthy_node_says_so() -> None:
    found = node_condition(places(count=2))
    assert found is not None
    assert (found.status, found.reason, found.message) == ("False", "HealthyGPUs", "2 GPUs shared")
    assert node_condition(Node()) is None


def test_an_unhealthy_gpu_is_named_with_its_cause_and_what_to_do() -> None:
    found = node_condition(fallen(places(), uuid(1)))
    assert found is not None
    assert (found.status, found.reason) == ("True", "UnhealthyGPUs")
    assert uuid(1) in found.message
    assert "79" in found.message
    assert "What to do: " in found.message
    assert uuid(0) not in found.message


def test_what_is_only_withheld_is_not_unhealthy() -> None:
    assert unhealthy_gpus(cordoned(places(), uuid(0), on=True)) == {}


def test_a_gpu_that_is_not_shared_does_not_count() -> None:
    of = fallen(places(), uuid(0))
    assert of.sharing is not None
    assert unhealthy_gpus(evolve(of, sharing=evolve(of.sharing, deny=(uuid(0),)))) == {}


def test_gpus_that_cannot_be_read_are_unknown() -> None:
    found = node_condition(evolve(places(), probe_problem="no NVIDIA driver"))
    assert found is not None
    assert (found.status, found.message) == ("Unknown", "no NVIDIA driver")


def test_the_message_stays_short() -> None:
    of = places(count=9)
    for number in range(9):
        of = fallen(of, uuid(number))
    found = node_condition(of)
    assert found is not None
    assert found.message.endswith(f"; and {9 - SHOWN} more")


def test_a_fall_and_a_recovery_are_an_event_each() -> None:
    sick = unhealthy_gpus(fallen(places(), uuid(1)))
    (fell,) = health_events({}, sick, "node-1")
    assert (fell.about.name, fell.reason, fell.type) == (
        "node-1", "GPUUnhealthy", EventType.WARNING,
    )  # fmt: skip
    assert uuid(1) in fell.message
    assert list(health_events(sick, sick, "node-1")) == []
    (rose,) = health_events(sick, {}, "node-1")
    assert (rose.reason, rose.type) == ("GPURecovered", EventType.NORMAL)


def test_the_time_of_the_last_transition_stays_until_there_is_one() -> None:
    bad = node_condition(fallen(places(), uuid(1)))
    good = node_condition(places())
    assert bad is not None
    assert good is not None
    (first,) = condition_document(bad, {}, NOW)["status"]["conditions"]
    assert first["type"] == "SharedGPUUnhealthy"
    assert first["lastTransitionTime"] == "2023-11-14T22:13:20Z"
    (again,) = condition_document(bad, first, NOW + 60)["status"]["conditions"]
    assert again["lastTransitionTime"] == first["lastTransitionTime"]
    assert again["lastHeartbeatTime"] == "2023-11-14T22:14:20Z"
    (over,) = condition_document(good, again, NOW + 60)["status"]["conditions"]
    assert over["lastTransitionTime"] == over["lastHeartbeatTime"]
