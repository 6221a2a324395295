from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import HeldShares, Key
from sgpud.core.planning.listing import (
    DRAIN_FOR,
    EMPTY_FOR,
    Draining,
    ListedShares,
    Listing,
    ListingInputs,
    next_due,
    partitions,
    step,
    taken_over,
)
from sgpud.core.sharing.rules import GpuRule, Partition
from sgpud.core.sharing.share_id import MESSAGE_LIMIT, listed_bytes
from tests.core.values import OTHER, POOL, gpu, sharing, some_numbers, uuid

HERE, THERE, NEXT = (POOL, uuid(0)), (OTHER, uuid(0)), (POOL, uuid(1))


def facts(
    counts: Mapping[Key, int],
    held: Mapping[Key, IntSet] | None = None,
    held_shares: Mapping[Key, tuple[HeldShares, ...]] | None = None,
    *,
    may_remove: bool = True,
) -> ListingInputs:
    names = tuple(dict.fromkeys(resource for resource, _ in counts))
    partitions = {key: Partition(count) for key, count in counts.items()}
    return ListingInputs(partitions, names, held or {}, held_shares or {}, {}, may_remove)


def of(*numbers: int) -> IntSet:
    return IntSet.of(numbers)


def begun(count: int = 4, key: Key = HERE) -> Listing:
    return step(Listing(), facts({key: count}), 0.0)


def test_a_gpu_has_as_many_shares_as_configured_from_nought() -> None:
    assert begun(4).blocks == {HERE: ListedShares(of(0, 1, 2, 3))}


def test_what_is_wanted_follows_the_gpus_order_whatever_order_they_come_in() -> None:
    config = sharing(4, GpuRule("1", resource=OTHER, factor=2), deny=("2",))
    expected = [(HERE, 4), ((OTHER, uuid(1)), 2), ((POOL, uuid(3)), 4)]
    found = partitions(config, [gpu(3), gpu(2), gpu(1), gpu(0)])
    assert [(key, partition.shares) for key, partition in found.items()] == expected


def test_a_share_that_is_to_go_drains_for_thirty_seconds() -> None:
    small = facts({HERE: 1})
    draining = step(begun(3), small, 5.0)
    assert draining.blocks == {HERE: ListedShares(of(0), (Draining(of(1, 2), 5.0),))}
    assert next_due(draining) == 5.0 + DRAIN_FOR
    assert step(draining, small, 4.9 + DRAIN_FOR) == draining
    gone = step(draining, small, 5.0 + DRAIN_FOR)
    assert gone.blocks == {HERE: ListedShares(of(0))}
    assert next_due(gone) is None


def test_what_is_wanted_again_comes_back_from_draining() -> None:
    draining = step(begun(3), facts({HERE: 1}), 5.0)
    assert step(draining, facts({HERE: 2}), 6.0).blocks == {
        HERE: ListedShares(of(0, 1), (Draining(of(2), 5.0),))
    }


def test_held_shares_stay_and_free_ones_make_room() -> None:
    held = {HERE: of(2, 3)}
    assert step(begun(4), facts({HERE: 3}, held), 5.0).blocks == {
        HERE: ListedShares(of(0, 2, 3), (Draining(of(1), 5.0),))
    }
    assert step(begun(4), facts({HERE: 1}, held), 5.0).blocks == {
        HERE: ListedShares(of(2, 3), (Draining(of(0, 1), 5.0),))
    }


def test_a_draining_share_that_is_held_again_is_active_even_when_its_time_is_over() -> None:
    draining = step(begun(3), facts({HERE: 1}), 5.0)
    back = step(draining, facts({HERE: 1}, {HERE: of(2)}), 100.0)
    assert back.blocks == {HERE: ListedShares(of(2), (Draining(of(0), 100.0),))}


def test_nothing_is_removed_while_nobody_knows_who_holds_what() -> None:
    draining = step(begun(3), facts({HERE: 1}), 5.0)
    assert step(draining, facts({HERE: 1}, may_remove=False), 100.0) == draining


def test_another_pool_of_the_same_gpu_takes_other_numbers() -> None:
    moved = step(begun(2), facts({THERE: 3}), 5.0)
    assert moved.blocks == {
        THERE: ListedShares(of(2, 3, 4)),
        HERE: ListedShares(of(), (Draining(of(0, 1), 5.0),)),
    }


def test_a_number_that_leaves_one_pool_does_not_enter_another_in_the_same_step() -> None:
    full = {HERE: (HeldShares(1),)}
    moved = step(begun(2), facts({THERE: 1}, held_shares=full), 5.0)
    assert moved.blocks == {HERE: ListedShares(of(), (Draining(of(0, 1), 5.0),))}
    assert step(moved, facts({THERE: 3}), 5.0 + DRAIN_FOR).blocks == {
        THERE: ListedShares(of(2, 3, 4))
    }


def test_a_pool_has_room_for_the_fraction_that_others_do_not_hold() -> None:
    for batch, room in ((HeldShares(1, 100), 3), (HeldShares(1, 2), 2), (HeldShares(3, 2), 0)):
        found = step(Listing(), facts({THERE: 4}, {HERE: of(9)}, {HERE: (batch,)}), 0.0)
        assert found.blocks[HERE] == ListedShares(of(9))
        assert len(found.blocks.get(THERE, ListedShares()).active) == room


def test_as_the_other_pool_is_released_room_grows() -> None:
    crowded = step(Listing(), facts({THERE: 4}, {HERE: of(9)}, {HERE: (HeldShares(1, 2),)}), 0.0)
    freed = step(crowded, facts({THERE: 4}), 1.0)
    assert freed.blocks == {
        THERE: ListedShares(of(0, 1, 2, 3)),
        HERE: ListedShares(of(), (Draining(of(9), 1.0),)),
    }


def test_a_dropped_pool_shows_its_empty_list_for_ten_seconds() -> None:
    nothing = facts({})
    draining = step(begun(1), nothing, 0.0)
    empty = step(draining, nothing, DRAIN_FOR)
    assert (empty.blocks, empty.empty_since) == ({}, {POOL: DRAIN_FOR})
    assert next_due(empty) == DRAIN_FOR + EMPTY_FOR
    assert step(empty, nothing, DRAIN_FOR + EMPTY_FOR - 0.1) == empty
    assert step(empty, nothing, DRAIN_FOR + EMPTY_FOR) == Listing()


def test_a_dropped_pool_that_is_wanted_again_is_dropped_no_more() -> None:
    empty = step(step(begun(1), facts({}), 0.0), facts({}), DRAIN_FOR)
    assert step(empty, facts({HERE: 1}), DRAIN_FOR + 1).empty_since == {}


def test_what_the_kubelet_knew_is_taken_over_and_drains_where_nothing_wants_it() -> None:
    known = taken_over(Listing(), {HERE: of(0, 1, 7), THERE: of(8)})
    assert step(known, facts({HERE: 2}), 3.0).blocks == {
        HERE: ListedShares(of(0, 1), (Draining(of(7), 3.0),)),
        THERE: ListedShares(of(), (Draining(of(8), 3.0),)),
    }


def test_a_number_that_the_kubelet_knew_twice_is_taken_over_once() -> None:
    known = taken_over(begun(2), {THERE: of(1, 5), HERE: of(2, 5)})
    assert known.blocks == {HERE: ListedShares(of(0, 1, 2)), THERE: ListedShares(of(5))}


def test_an_id_that_two_pools_are_said_to_hold_stays_with_the_one_that_lists_it() -> None:
    lie = facts({HERE: 2}, {THERE: of(0, 5), HERE: of(1, 5)})
    assert step(begun(2), lie, 0.0).blocks == {
        HERE: ListedShares(of(0, 1)),
        THERE: ListedShares(of(0, 5) - of(0)),
    }


# Beyond the kubelet's 4 MiB. ---------------------------------------------------------------

MANY = 10_000


def test_a_gpu_past_the_limit_gets_nothing_and_the_others_keep_all() -> None:
    counts = {(POOL, uuid(number)): MANY for number in range(8)}
    found = step(Listing(), facts(counts), 0.0)
    assert found.past_limit == ((POOL, uuid(6)), (POOL, uuid(7)))
    assert set(found.blocks) == {(POOL, uuid(number)) for number in range(6)}
    assert step(found, facts(counts), 0.0) == found


def test_what_is_held_past_the_limit_is_listed() -> None:
    counts = {(POOL, uuid(number)): MANY for number in range(8)}
    found = step(Listing(), facts(counts, {(POOL, uuid(7)): of(3)}), 0.0)
    assert found.blocks[POOL, uuid(7)] == ListedShares(of(3))


def test_a_gpu_that_cannot_grow_keeps_what_it_has() -> None:
    counts = {**{(POOL, uuid(number)): MANY for number in range(1, 7)}, HERE: 5}
    full = step(Listing(), facts(counts), 0.0)
    grown = step(full, facts({**counts, HERE: MANY}), 1.0)
    assert grown.past_limit == (HERE,)
    assert grown.blocks == full.blocks


def test_once_draining_shares_have_gone_those_past_the_limit_come() -> None:
    first = {(POOL, uuid(number)): MANY for number in range(6)}
    second = {(POOL, uuid(number)): MANY for number in range(10, 16)}
    full = step(Listing(), facts(first), 0.0)
    changed = step(full, facts(second), 1.0)
    assert set(changed.past_limit) == set(second)
    later = step(changed, facts(second), 1.0 + DRAIN_FOR)
    assert later.past_limit == ()
    assert set(later.blocks) == set(second)


counts = st.dictionaries(
    st.tuples(st.sampled_from([POOL, OTHER]), st.sampled_from([uuid(n) for n in range(9)])),
    st.sampled_from([1, 100, 5_000, 9_999, 10_000]),
    max_size=9,
)
held = st.dictionaries(
    st.tuples(st.sampled_from([POOL, OTHER]), st.sampled_from([uuid(n) for n in range(9)])),
    some_numbers,
    max_size=4,
)
histories = st.lists(st.tuples(counts, held, st.sampled_from([0.0, 1.0, 29.0, 31.0])), max_size=6)


@pytest.mark.slow
@given(histories)
def test_no_history_makes_a_message_too_large(
    history: list[tuple[dict[Key, int], dict[Key, IntSet], float]],
) -> None:
    listing, now = Listing(), 0.0
    for wants, holds, duration in history:
        now += duration
        # A GPU is wanted by one pool only.
        single = {
            key: count
            for key, count in wants.items()
            if key[0] == POOL or (POOL, key[1]) not in wants
        }
        listing = step(listing, facts(single, holds), now)
        sizes: dict[str, int] = {}
        for (resource, name), block in listing.blocks.items():
            sizes[resource] = sizes.get(resource, 0) + listed_bytes(name, block.listed)
        assert all(size <= MESSAGE_LIMIT for size in sizes.values())
