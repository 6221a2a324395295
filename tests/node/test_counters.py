"""What is counted, and what an operator hears of."""

from __future__ import annotations

from sgpud.core.allocation.allocate import RefusalRule, RefusedError
from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import Grant
from sgpud.core.planning.plan import Plan
from sgpud.core.status.view import CallTimes
from sgpud.node.counters import EventCounters
from tests.core.values import POOL, ids, uuid
from tests.surroundings import listening


def refusal(rule: RefusalRule) -> RefusedError:
    return RefusedError(rule, ids(0, 1), "not now: ")


def test_nothing_is_counted_at_first() -> None:
    made = EventCounters()
    counters = made.counters(0, 1, ())
    assert (counters.allocations, counters.registrations) == (0, 0)
    assert (dict(counters.refusals), dict(counters.reloads)) == ({}, {})


def test_each_grant_counts() -> None:
    made = EventCounters()
    grant = Grant(POOL, {uuid(0): IntSet.of([1])}, {uuid(0): 4}, 0.0)
    made.granted([grant])
    made.granted([grant, grant])
    assert made.counters(0, 1, ()).allocations == 3


def test_refusals_count_by_rule_and_are_said_with_what_follows() -> None:
    made = EventCounters()
    with listening() as said:
        made.refused(POOL, refusal(RefusalRule.UNHEALTHY))
        made.refused(POOL, refusal(RefusalRule.UNHEALTHY))
        made.refused(POOL, refusal(RefusalRule.UNKNOWN))
    assert made.counters(0, 1, ()).refusals == {"unhealthy": 2, "unknown": 1}
    assert len(said.about("its pod fails")) == 3
    assert ids(0, 1)[0] in said.lines[0]
    assert said.events[0]["rule"] == "unhealthy"


def test_reloads_count_by_result() -> None:
    made = EventCounters()
    for result in ("applied", "refused", "applied"):
        made.reloaded(result)
    assert made.counters(7, 1, ()).reloads == {"applied": 2, "refused": 1}
    assert made.counters(7, 1, ()).registrations == 7


def test_counters_that_were_given_out_stay_as_they_were() -> None:
    made = EventCounters()
    before = made.counters(0, 1, ())
    made.reloaded("applied")
    made.refused(POOL, refusal(RefusalRule.UNHEALTHY))
    assert (dict(before.reloads), dict(before.refusals)) == ({}, {})


def test_a_note_is_said_once_while_it_stays_and_again_when_it_comes_back() -> None:
    made = EventCounters()
    with listening() as said:
        for notes in (("full",), ("full",), ("full", "no GPU 7"), ("full",), ("no GPU 7",)):
            made.planned(Plan(notes=notes))
    assert said.lines == ["full", "no GPU 7", "no GPU 7"]


def test_lists_are_counted_by_resource() -> None:
    made = EventCounters()
    for resource in ("a", "b", "a"):
        made.listed(resource)
    times = (CallTimes("sample", 2, 0.5),)
    found = made.counters(0, 3, times)
    assert (found.lists, found.probe_starts, found.calls) == ({"a": 2, "b": 1}, 3, times)
