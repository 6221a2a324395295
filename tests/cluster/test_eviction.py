"""The Eviction API: budgets are honoured, what is missing is said, and nobody else is evicted."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from sgpud.cluster.calls import RIGHTS_AGAIN, ApiError
from sgpud.cluster.eviction import (
    AGAIN,
    FIRST_AGAIN,
    LONGEST_AGAIN,
    Eviction,
    EvictionResult,
    Evictor,
)
from sgpud.core.cluster.events import pod_reference
from tests.cluster.answering import AnsweringApi

A, B = (pod_reference("ns", name, f"uid-{name}") for name in "ab")


def evicting() -> tuple[Clock, AnsweringApi, Evictor, list[Eviction]]:
    """An evictor, and what it tells."""
    clock, api = Clock(), AnsweringApi()
    told: list[Eviction] = []
    return clock, api, Evictor(clock, api, told.append, lambda: 0.0), told


def results(evictor: Evictor) -> dict[str, str]:
    return {one.pod.name: one.result.value for one in evictor.evictions}


def test_a_pod_is_evicted_once_by_its_uid() -> None:
    clock, api, evictor, told = evicting()
    for _ in range(3):
        evictor.evict({A: "its GPU is unhealthy"})
        clock.advance(1)
    (call,) = api.calls
    assert (call.method, call.path) == ("POST", "/api/v1/namespaces/ns/pods/a/eviction")
    assert call.body == {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": "a", "namespace": "ns"},
        "deleteOptions": {"preconditions": {"uid": "uid-a"}},
    }
    assert [one.result for one in told] == [EvictionResult.EVICTED]
    assert evictor.problem == ""
    clock.advance(AGAIN)
    assert len(api.calls) == 2  # it is still to be evicted, and still there


def test_a_budget_is_honoured_for_as_long_as_it_takes() -> None:
    clock, api, evictor, told = evicting()
    budget = ApiError(429, "Cannot evict pod as it would violate the pod's disruption budget.")
    api.errors = [budget] * 6
    evictor.evict({A: "why"})
    clock.advance(0)
    assert results(evictor) == {"a": "blocked"}
    assert evictor.problem.startswith("cannot evict pod ns/a: Cannot evict pod as it would violate")
    waits = []
    for _ in range(6):
        before, count = clock.seconds(), len(api.calls)
        while len(api.calls) == count:
            clock.advance(0.5)
        waits.append(clock.seconds() - before)
    assert waits == [FIRST_AGAIN, 10.0, 20.0, 40.0, LONGEST_AGAIN, LONGEST_AGAIN]
    assert results(evictor) == {"a": "evicted"}
    assert [one.result.value for one in told] == ["blocked", "evicted"]


def test_a_longer_wait_that_the_server_asks_for_counts() -> None:
    clock, api, evictor, _ = evicting()
    api.errors = [ApiError(429, "later", 30.0)]
    evictor.evict({A: "why"})
    clock.pump([0.0, 29.0])
    assert len(api.calls) == 1
    clock.advance(2)
    assert len(api.calls) == 2


def test_one_that_waits_does_not_hold_up_the_others() -> None:
    clock, api, evictor, _ = evicting()
    api.errors = [ApiError(429, "budget")]
    evictor.evict({A: "why", B: "why"})
    clock.pump([0.0, 0.0])
    assert results(evictor) == {"a": "blocked", "b": "evicted"}


@pytest.mark.parametrize("status", [404, 409])
def test_one_that_is_gone_is_done(status: int) -> None:
    clock, api, evictor, _ = evicting()
    api.errors = [ApiError(status, "gone")]
    evictor.evict({A: "why"})
    clock.pump([1.0] * 100)
    assert (len(api.calls), results(evictor)) == (1, {"a": "evicted"})


def test_without_rights_it_says_so_and_looks_again_rarely() -> None:
    clock, api, evictor, told = evicting()
    api.errors = [ApiError(403, "pods is forbidden")]
    evictor.evict({A: "why"})
    clock.pump([10.0] * 29)
    assert len(api.calls) == 1
    assert evictor.problem == "cannot evict pod ns/a: 403: pods is forbidden"
    clock.advance(RIGHTS_AGAIN)
    assert [one.result.value for one in told] == ["forbidden", "evicted"]


def test_the_server_away_is_tried_again() -> None:
    clock, api, evictor, told = evicting()
    api.errors = [ApiError(0, "no answer"), ApiError(500, "more than one PodDisruptionBudget")]
    evictor.evict({A: "why"})
    clock.pump([1.0] * 20)
    assert [(one.result.value, one.problem) for one in told] == [
        ("failed", "no answer"),
        ("failed", "500: more than one PodDisruptionBudget"),
        ("evicted", ""),
    ]


def test_one_that_need_not_go_any_more_is_let_alone() -> None:
    clock, api, evictor, told = evicting()
    api.errors = [ApiError(429, "budget")]
    evictor.evict({A: "why"})
    clock.advance(0)
    evictor.evict({})
    clock.pump([10.0] * 20)
    assert (len(api.calls), evictor.problem, evictor.evictions) == (1, "", ())
    held: Deferred[None] = Deferred()
    api.held = held
    evictor.evict({A: "why"})
    clock.advance(0)
    evictor.evict({})
    held.callback(None)
    assert [one.result.value for one in told] == ["blocked"]


def test_a_stop_ends_it() -> None:
    clock, api, evictor, _ = evicting()
    api.held = Deferred()
    evictor.evict({A: "why", B: "why"})
    clock.advance(0)
    evictor.stop()
    clock.pump([10.0] * 20)
    assert len(api.calls) == 1
    assert clock.getDelayedCalls() == []
