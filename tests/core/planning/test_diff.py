from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.diff import changes
from sgpud.core.sharing.rules import GpuRule
from tests.core.values import OTHER, POOL, checkpoint, gpu, holder, node, planned, sharing, uuid

HELD = checkpoint(holder({uuid(0): IntSet.of([2])}, per_gpu=4))


def test_a_plan_does_not_differ_from_itself() -> None:
    found = planned(node(sharing(), [gpu(0)]))
    assert changes(found, found) == ()


def test_from_nothing_everything_comes() -> None:
    (change,) = changes(None, planned(node(sharing(4), [gpu(0)])))
    assert (change.resource, change.gpu, change.before, change.after) == (POOL, uuid(0), 0, 4)
    assert str(change) == f"{POOL} {uuid(0)}: 0 -> 4 shares"


def test_fewer_shares_say_what_is_held_and_what_drains() -> None:
    begun = node(sharing(4), [gpu(0), gpu(1)], HELD)
    fewer = sharing(4, GpuRule(uuid(0), factor=2))
    after = advance(evolve(begun, sharing=fewer), 1.0, 1001.0)
    (change,) = changes(planned(begun), planned(after))
    assert str(change) == f"{POOL} {uuid(0)}: 4 -> 2 shares, 1 held and kept, 2 draining"


def test_a_renamed_pool_goes_and_comes() -> None:
    begun = node(sharing(4), [gpu(0)])
    after = advance(evolve(begun, sharing=sharing(4, resource=OTHER)), 1.0, 1001.0)
    found = changes(planned(begun), planned(after))
    assert [(one.resource, one.before, one.after, one.draining) for one in found] == [
        (OTHER, 0, 4, 0),
        (POOL, 4, 0, 4),
    ]


@given(st.integers(1, 9), st.integers(1, 9))
def test_the_numbers_are_those_of_the_plans(before: int, after: int) -> None:
    begun = node(sharing(before), [gpu(0)])
    then = advance(evolve(begun, sharing=sharing(after)), 1.0, 1001.0)
    found = changes(planned(begun), planned(then))
    assert [(one.before, one.after) for one in found] == (
        [] if before == after else [(before, after)]
    )
