"""What is counted, and what an operator hears of."""

from __future__ import annotations

from sgpud.core.allocation import RefusalRule, RefusedError
from sgpud.core.holding import Grant
from sgpud.core.numbers import Numbers
from sgpud.core.plan import Plan
from sgpud.node.tally import Tally
from tests.core.values import POOL, ids, uuid
from tests.surroundings import listening


def refusal(rule: RefusalRule) -> RefusedError:
    return RefusedError(rule, ids(0, 1), "not now: ")


def test_nothing_is_counted_at_first() -> None:
    made = Tally()
    counters = made.counters(0, 1, ())
    assert (counters.allocations, counters.registrations) == (0, 0)
    assert (dict(counters.refusals), dict(counters.reloads)) == ({}, {})


def test_each_grant_counts() -> None:
    made = Tally()
    grant = Grant(POOL, {uuid(0): Numbers.of([1])}, {uuid(0): 4}, 0.0)
    made.granted([grant])
    made.granted([grant, grant])
    assert made.counters(0, 1, ()).allocations == 3


def test_refusals_count_by_rule_and_are_said_with_what_follows() -> None:
    made = Tally()
    with listening() as said:
        made.refused(POOL, refusal(RefusalRule.SICK))
        made.refused(POOL, refusal(RefusalRule.SICK))
        made.refused(POOL, refusal(RefusalRule.UNKNOWN))
    assert made.counters(0, 1, ()).refusals == {"sick": 2, "unknown": 1}
    assert len(said.about("its pod fails")) == 3
    assert ids(0, 1)[0] in said.lines[0]
    assert said.events[0]["rule"] == "sick"


def test_reloads_count_by_result() -> None:
    made = Tally()
    for result in ("applied", "refused", "applied"):
        made.reloaded(result)
    assert made.counters(7, 1, ()).reloads == {"applied": 2, "refused": 1}
    assert made.counters(7, 1, ()).registrations == 7


def test_counters_that_were_given_out_stay_as_they_were() -> None:
    made = Tally()
    before = made.counters(0, 1, ())
    made.reloaded("applied")
    made.refused(POOL, refusal(RefusalRule.SICK))
    assert (dict(before.reloads), dict(before.refusals)) == ({}, {})


def test_a_note_is_said_once_while_it_stays_and_again_when_it_comes_back() -> None:
    made = Tally()
    with listening() as said:
        for notes in (("full",), ("full",), ("full", "no GPU 7"), ("full",), ("no GPU 7",)):
            made.planned(Plan(notes=notes))
    assert said.lines == ["full", "no GPU 7", "no GPU 7"]
