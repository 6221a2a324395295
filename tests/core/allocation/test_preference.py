from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.allocation.allocate import RefusalRule, RefusedError, allocate
from sgpud.core.allocation.preference import prefer, prefer_free
from sgpud.core.intset import IntSet
from sgpud.core.sharing.rules import InjectionMethod, InjectionSettings, Multiple, Placement
from sgpud.core.sharing.share_id import share_id
from tests.core.allocation.preferring import Request, allowed, counted, requests, score, ways
from tests.core.values import (
    OTHER,
    checkpoint,
    fallen,
    gpu,
    holder,
    ids,
    node,
    served,
    sharing,
    uuid,
)

RUNTIME = InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)


@given(requests())
def test_the_answer_is_exactly_size_available_ids_with_those_that_must_be(asked: Request) -> None:
    answer = asked.ask()
    assert len(answer) == len(set(answer)) == asked.size
    assert set(asked.must) <= set(answer) <= set(asked.available)


@given(requests(), st.data())
def test_the_order_of_the_ids_does_not_matter(asked: Request, data: st.DataObject) -> None:
    mixed = evolve(
        asked,
        available=data.draw(st.permutations(asked.available)),
        must=data.draw(st.permutations(asked.must)),
    )
    assert set(mixed.ask()) == set(asked.ask())


@given(requests())
def test_no_other_answer_would_be_better(asked: Request) -> None:
    """Brute force over all ways to take so many shares from each GPU.

    distinct: the most GPUs, then the least loaded (spread) or the most loaded (packed). same: one
    GPU if any has room, else the fewest whole GPUs cut alike that add up to the request, the least
    or most loaded of those. Otherwise, spread: each share costs what its GPU is loaded by then, and
    the sum is least; packed: the fullest GPUs are filled first.
    """
    best = max(score(asked, way) for way in ways(asked))
    assert score(asked, counted(asked, asked.ask())) == pytest.approx(best)


@given(requests())
def test_allocate_gives_what_was_preferred_wherever_anything_could_be_given(asked: Request) -> None:
    if not asked.size:
        return
    try:
        allocate(asked.plan, asked.pool, asked.index, asked.ask())
    except RefusedError as refusal:
        assert refusal.rule is RefusalRule.MULTIPLE  # noqa: PT017
        multiple = asked.pool.multiple
        possible = [allowed(asked, way) for way in ways(asked)]
        assert multiple is Multiple.REFUSE or not any(possible)


@given(requests())
def test_shares_that_are_known_to_be_free_are_preferred_like_ids(asked: Request) -> None:
    free = [
        IntSet.of(n for n in group.free if share_id(group.uuid, n) in asked.available)
        for group in asked.pool.groups
    ]
    found = prefer_free(asked.plan, asked.pool, free, asked.size)
    by_ids = prefer(asked.plan, asked.pool, asked.index, asked.available, (), asked.size)
    assert found == by_ids


# Examples. -------------------------------------------------------------------------------------

FLEET = [gpu(0), gpu(1), gpu(2)]
BUSY = checkpoint(holder({uuid(0): IntSet.of([0, 1]), uuid(1): IntSet.of([0])}))


def choose(size: int, *, must: tuple[str, ...] = (), **config: Any) -> list[str]:
    """Of 4 shares on each of three GPUs, of which 2, 1 and 0 are held."""
    plan, pool, known = served(node(sharing(4, injection=RUNTIME, **config), FLEET, BUSY))
    free = [share_id(one.uuid, number) for one in pool.groups for number in one.free]
    return prefer(plan, pool, known, free, must, size).ids


def test_spread_takes_from_the_gpu_with_least_held() -> None:
    assert choose(1) == ids(2, 0)
    assert sorted(choose(5, multiple=Multiple.ANY)) == ids(0, 2) + ids(1, 1, 2) + ids(2, 0, 1)[:2]


def test_packed_takes_from_the_gpu_with_most_held_that_has_room() -> None:
    packed = Placement.PACKED
    assert choose(1, placement=packed) == ids(0, 2)
    assert sorted(choose(3, placement=packed, multiple=Multiple.ANY)) == ids(0, 2, 3) + ids(1, 1)


def test_distinct_takes_one_of_each() -> None:
    assert sorted(choose(3)) == ids(0, 2) + ids(1, 1) + ids(2, 0)
    assert sorted(choose(2, placement=Placement.PACKED)) == ids(0, 2) + ids(1, 1)


def test_same_takes_all_from_one_that_has_them() -> None:
    assert choose(3, multiple=Multiple.SAME, placement=Placement.PACKED) == ids(1, 1, 2, 3)
    assert choose(4, multiple=Multiple.SAME) == ids(2, 0, 1, 2, 3)


def test_same_stays_with_the_gpu_that_must_be() -> None:
    must = tuple(ids(0, 2))
    assert sorted(choose(2, must=must, multiple=Multiple.SAME)) == ids(0, 2, 3)


def test_same_takes_whole_gpus_where_no_gpu_has_so_many_shares() -> None:
    plan, pool, known = served(node(sharing(4, injection=RUNTIME, multiple=Multiple.SAME), FLEET))
    free = [share_id(one.uuid, number) for one in pool.groups for number in one.free]
    two = prefer(plan, pool, known, free, (), 8).ids
    assert sorted(two) == ids(0, 0, 1, 2, 3) + ids(1, 0, 1, 2, 3)
    must = tuple(ids(2, 1))
    assert sorted(prefer(plan, pool, known, free, must, 8).ids) == sorted(
        ids(0, 0, 1, 2, 3) + ids(2, 0, 1, 2, 3)
    )


def test_same_takes_whole_gpus_of_one_numa_node_if_it_has_enough() -> None:
    fleet = [gpu(0, numa=0), gpu(1, numa=1), gpu(2, numa=1)]
    config = sharing(4, injection=RUNTIME, multiple=Multiple.SAME, numa=True)
    plan, pool, known = served(node(config, fleet))
    free = [share_id(one.uuid, number) for one in pool.groups for number in one.free]
    two = prefer(plan, pool, known, free, (), 8).ids
    assert sorted(two) == ids(1, 0, 1, 2, 3) + ids(2, 0, 1, 2, 3)


def test_distinct_avoids_the_gpu_that_must_be() -> None:
    assert sorted(choose(2, must=tuple(ids(2, 3)))) == ids(1, 1) + ids(2, 3)


def test_what_other_pools_hold_of_a_gpu_counts() -> None:
    known = checkpoint(holder({uuid(0): IntSet.of([50])}, resource=OTHER, per_gpu=2))
    plan, pool, found = served(node(sharing(4, injection=RUNTIME), FLEET[:2], known))
    free = ids(0, 0, 1) + ids(1, 0, 1, 2, 3)
    assert prefer(plan, pool, found, free, (), 1).ids == ids(1, 0)


def test_a_sick_gpu_comes_last_when_the_kubelet_has_not_heard_yet() -> None:
    sick = fallen(node(sharing(4, injection=RUNTIME), FLEET[:2]), uuid(0))
    plan, pool, found = served(sick)
    assert prefer(plan, pool, found, ids(0, 0) + ids(1, 0), (), 1).ids == ids(1, 0)


ANYTHING = st.lists(st.sampled_from([*ids(0, 0, 1), *ids(1, 0), "", "nonsense", *ids(7, 1)]))


@given(ANYTHING, ANYTHING, st.integers(-2, 9), st.sampled_from(Multiple))
def test_no_request_is_an_error(
    available: list[str], must: list[str], size: int, multiple: Multiple
) -> None:
    plan, pool, known = served(node(sharing(2, multiple=multiple, injection=RUNTIME), FLEET[:2]))
    answer = prefer(plan, pool, known, available, must, size).ids
    assert len(answer) == len(set(answer)) == min(max(0, size), len({*available, *must}))
    assert set(answer) <= {*available, *must}
