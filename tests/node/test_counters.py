"""What is counted, and what is logged for an operator."""

from __future__ import annotations

from attrs import evolve

from sgpud.core.allocation.allocate import RefusalRule, RefusedError
from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import Grant
from sgpud.core.planning.plan import Plan
from sgpud.core.status.view import CallTimes
from sgpud.node.counters import EventCounters
from tests.core.values import OTHER, POOL, ids, uuid
from tests.surroundings import listening


def refusal(rule: RefusalRule) -> RefusedError:
    return RefusedError(rule, ids(0, 1), "not now: ")


def test_counters_start_at_zero() -> None:
    counters = EventCounters()
    found = counters.counters(0, 1, ())
    assert (found.allocations, found.registrations) == (0, 0)
    assert (dict(found.refusals), dict(found.reloads)) == ({}, {})


def test_each_grant_is_counted() -> None:
    counters = EventCounters()
    grant = Grant(POOL, {uuid(0): IntSet.of([1])}, {uuid(0): 4}, 0.0)
    counters.granted([grant])
    counters.granted([grant, grant])
    assert counters.counters(0, 1, ()).allocations == 3


def test_a_burst_of_grants_is_one_line_for_each_resource() -> None:
    counters = EventCounters()
    one = Grant(POOL, {uuid(0): IntSet.of([1])}, {uuid(0): 4}, 0.0)
    both = Grant(POOL, {uuid(0): IntSet.of([2, 3]), uuid(1): IntSet.of([0])}, {}, 0.0)
    with listening() as logged:
        counters.granted([one, both, evolve(one, resource=OTHER)])
    assert logged.lines == [
        f"{POOL}: granted 3 of {uuid(0)}, 1 of {uuid(1)}",
        f"{OTHER}: granted 1 of {uuid(0)}",
    ]


def test_refusals_are_counted_by_rule_and_logged_with_their_consequence() -> None:
    counters = EventCounters()
    with listening() as logged:
        counters.refused(POOL, refusal(RefusalRule.UNHEALTHY))
        counters.refused(POOL, refusal(RefusalRule.UNHEALTHY))
        counters.refused(POOL, refusal(RefusalRule.UNKNOWN))
    assert counters.counters(0, 1, ()).refusals == {"unhealthy": 2, "unknown": 1}
    assert len(logged.about("its pod fails")) == 3
    assert ids(0, 1)[0] in logged.lines[0]
    assert logged.events[0]["rule"] == "unhealthy"


def test_reloads_are_counted_by_result() -> None:
    counters = EventCounters()
    for result in ("applied", "refused", "applied"):
        counters.reloaded(result)
    assert counters.counters(7, 1, ()).reloads == {"applied": 2, "refused": 1}
    assert counters.counters(7, 1, ()).registrations == 7


def test_a_snapshot_of_the_counters_does_not_change() -> None:
    counters = EventCounters()
    before = counters.counters(0, 1, ())
    counters.reloaded("applied")
    counters.refused(POOL, refusal(RefusalRule.UNHEALTHY))
    assert (dict(before.reloads), dict(before.refusals)) == ({}, {})


def test_a_note_is_logged_once_while_it_lasts_and_again_when_it_returns() -> None:
    counters = EventCounters()
    with listening() as logged:
        for notes in (("full",), ("full",), ("full", "no GPU 7"), ("full",), ("no GPU 7",)):
            counters.planned(Plan(notes=notes))
    assert logged.lines == ["full", "no GPU 7", "no GPU 7"]


def test_lists_are_counted_by_resource() -> None:
    counters = EventCounters()
    for resource in ("a", "b", "a"):
        counters.listed(resource)
    times = (CallTimes("sample", 2, 0.5),)
    found = counters.counters(0, 3, times)
    assert (found.lists, found.probe_starts, found.calls) == ({"a": 2, "b": 1}, 3, times)
