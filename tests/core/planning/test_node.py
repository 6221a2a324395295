from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import LATE, advance, next_turn
from sgpud.core.planning.holdings import SETTLED_AFTER, CheckpointState
from sgpud.core.planning.listing import DRAIN_FOR, Listing
from sgpud.core.planning.node import Node, checkpoint_read
from sgpud.core.sharing.limits import TooLargeError, check_size
from sgpud.core.sharing.rules import GpuRule
from sgpud.core.sharing.share_id import MESSAGE_LIMIT
from tests.core.values import OTHER, POOL, checkpoint, gpu, grant, holder, node, sharing, uuid

ONE = IntSet.of([1])


@pytest.mark.parametrize("missing", ["sharing", "gpus", "checkpoint"])
def test_nothing_moves_while_a_fact_is_unknown(missing: str) -> None:
    known = Node(
        sharing(), (gpu(0),), checkpoint=CheckpointState(), grants=(grant({uuid(0): ONE}, at=0.0),)
    )
    unknown = evolve(known, **dict[str, Any]({missing: None}))
    assert advance(unknown, 100.0, 100.0) == unknown


def test_what_the_kubelet_knew_is_taken_over_once() -> None:
    known = checkpoint(registered={(POOL, uuid(0)): IntSet.of([7])})
    begun = node(sharing(1), [gpu(0)], known)
    assert 7 in begun.listing.blocks[POOL, uuid(0)].active
    shrunk = advance(evolve(begun, sharing=sharing(1, allow=("9",))), 1.0, 1000.0)
    gone = advance(shrunk, 1.0 + DRAIN_FOR, 1000.0)
    assert gone.listing.blocks == {}
    assert advance(evolve(gone, checkpoint=known), 40.0, 1000.0).listing.blocks == {}


def test_books_that_cannot_be_read_leave_the_taking_over_to_those_that_can() -> None:
    unread = node(sharing(1), [gpu(0)], checkpoint(problem="not JSON"))
    known = checkpoint(registered={(POOL, uuid(0)): IntSet.of([7])})
    read = advance(evolve(unread, checkpoint=known), 1.0, 1000.0)
    assert 7 in read.listing.blocks[POOL, uuid(0)].listed


def test_what_the_kubelet_knew_waits_in_the_books_until_it_is_taken_over() -> None:
    known = checkpoint(registered={(POOL, uuid(0)): IntSet.of([7])})
    waiting = checkpoint_read(Node(sharing(1)), known)
    later = checkpoint_read(waiting, checkpoint(written=2000.0))
    assert (later.checkpoint, waiting.checkpoint) == (evolve(known, written=2000.0), known)
    begun = advance(evolve(later, gpus=(gpu(0),)), 0.0, 2000.0)
    assert 7 in begun.listing.blocks[POOL, uuid(0)].listed
    assert checkpoint_read(begun, checkpoint()).checkpoint == checkpoint()


def test_a_grant_is_held_until_books_written_ten_seconds_later_do_not_name_it() -> None:
    begun = node(sharing(1), [gpu(0)])
    given_out = evolve(
        begun, grants=(grant({uuid(0): IntSet.of([0])}),), sharing=sharing(deny=("*",))
    )
    kept = advance(given_out, 1000.0, 2000.0)
    assert kept.listing.blocks[POOL, uuid(0)].active == IntSet.of([0])
    late = evolve(kept, checkpoint=checkpoint(written=1000.0 + SETTLED_AFTER))
    ended = advance(late, 1001.0, 2001.0)
    assert ended.grants == ()
    assert ended.listing.blocks[POOL, uuid(0)].leaving == IntSet.of([0])


def test_books_that_name_a_grant_end_it_and_hold_the_share() -> None:
    begun = evolve(node(sharing(1), [gpu(0)]), grants=(grant({uuid(0): ONE}),))
    named = evolve(begun, checkpoint=checkpoint(holder({uuid(0): ONE}), written=2000.0))
    found = advance(named, 1.0, 2000.0)
    assert found.grants == ()
    assert 1 in found.listing.blocks[POOL, uuid(0)].active


def test_the_next_turn_is_when_a_share_has_drained_or_a_grant_should_be_settled() -> None:
    begun = node(sharing(2), [gpu(0)])
    assert next_turn(begun, 0.0, 1000.0) is None
    draining = advance(evolve(begun, sharing=sharing(1)), 5.0, 1005.0)
    assert next_turn(draining, 6.0, 1006.0) == LATE - 1
    assert next_turn(draining, 5.0 + LATE, 1005.0 + LATE) == DRAIN_FOR - LATE
    granted = evolve(draining, grants=(grant({uuid(0): ONE}, at=1005.0),))
    assert next_turn(granted, 11.0, 1011.0) == SETTLED_AFTER - 6
    assert next_turn(granted, 16.0, 1016.0) == DRAIN_FOR - 11


def test_nothing_waits_for_time_while_no_share_may_leave() -> None:
    begun = node(sharing(2), [gpu(0)])
    draining = advance(evolve(begun, sharing=sharing(1)), 5.0, 1005.0)
    unread = evolve(draining, checkpoint=checkpoint(problem="not JSON"))
    assert next_turn(unread, 100.0, 1100.0) is None


# The kubelet's 4 MiB. --------------------------------------------------------------------------


def test_a_pool_that_does_not_fit_is_refused_with_its_arithmetic() -> None:
    with pytest.raises(TooLargeError) as caught:
        check_size(sharing(10_000), [gpu(number) for number in range(7)])
    problem = caught.value
    assert (problem.resource, problem.shares) == (POOL, 70_000)
    each = problem.size // problem.shares
    assert f"70000 x {each} bytes = {problem.size} bytes" in str(problem)
    assert f"at most {MESSAGE_LIMIT // each} shares fit" in str(problem)


def test_two_pools_have_a_message_each() -> None:
    gpus = [gpu(number) for number in range(7)]
    check_size(sharing(10_000, GpuRule("6", resource=OTHER)), gpus)


@given(st.lists(st.integers(1, 10_000), max_size=8))
def test_what_passes_is_listed_in_full_by_a_fresh_node_and_after_a_rename(
    factors: list[int],
) -> None:
    gpus = [gpu(number) for number in range(len(factors))]
    rules = [GpuRule(str(number), factor=factor) for number, factor in enumerate(factors)]
    config = sharing(1, *rules)
    try:
        check_size(config, gpus)
    except TooLargeError:
        return
    begun = advance(Node(config, tuple(gpus), checkpoint=CheckpointState()), 0.0, 0.0)
    assert begun.listing.past_limit == ()
    renamed = advance(evolve(begun, sharing=sharing(1, *rules, resource=OTHER)), 1.0, 1.0)
    assert renamed.listing.past_limit == ()


def test_a_fresh_node_lists_nothing() -> None:
    assert Node().listing == Listing()


def test_ids_of_another_plugins_resource_are_not_taken_over() -> None:
    """NVIDIA's shares have ids of the same form, and the kubelet's checkpoint lists them too."""
    registered = {(POOL, uuid(0)): IntSet.of([7]), ("nvidia.com/gpu", uuid(0)): IntSet.of([0, 1])}
    found = node(sharing(), [gpu(0)], checkpoint(registered=registered))
    assert {resource for resource, _ in found.listing.blocks} == {POOL}
