"""Why an sgpud is not ready, and what is dead of it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import plan
from sgpud.core.registration.events import RegistrationPhase, RegistrationState
from sgpud.core.status.view import (
    ConfigurationView,
    Counters,
    InstanceView,
    NodeView,
    Timestamps,
    view,
)
from tests.core.values import POOL, gpu, node, sharing

LIVE = RegistrationState(phase=RegistrationPhase.LIVE, streams=1)


def seen(of: Node, serving: str, states: Mapping[str, RegistrationState], *waits: str) -> NodeView:
    instance = InstanceView(serving, "/plugins", waits, ("reconciler",))
    configuration = ConfigurationView("f", "file")
    moment = Timestamps(5.0, 1000.0)
    return view(of, plan(of, 1000.0), states, configuration, Counters(), instance, moment)


def test_one_that_serves_is_ready_when_the_kubelet_follows_every_list() -> None:
    of = node(sharing(4), [gpu(0)])
    found = seen(of, "serving", {POOL: LIVE})
    assert (found.unready, found.pools[0].streams, found.at) == ((), 1, 1000.0)
    waits = RegistrationState(phase=RegistrationPhase.WAITING, problem="refused")
    assert seen(of, "serving", {POOL: waits}).unready == (
        f"the kubelet does not follow {POOL}: waiting to retry (refused)",
    )
    assert "not registered" in seen(of, "serving", {}).unready[0]


def test_before_its_facts_are_known_it_is_not() -> None:
    found = seen(evolve(Node(), probe_problem="no driver"), "serving", {})
    assert found.unready[1] == "waiting for GPUs (no driver)"
    assert len(found.unready) == 3


def test_a_standby_needs_no_registration() -> None:
    of = node(sharing(4), [gpu(0)])
    assert seen(of, "standby: another sgpud serves", {}).unready == ()
    assert seen(of, "standby: another sgpud serves", {}, "not yet").unready == ("not yet",)


def test_without_a_directory_it_is_not_ready() -> None:
    of = node(sharing(4), [gpu(0)])
    assert seen(of, "no plugin directory", {}).unready == ("no plugin directory",)


def test_failed_parts_are_shown() -> None:
    assert seen(Node(), "serving", {}).dead == ("reconciler",)
