"""Which shares a container should get: by what is held, by what is measured, by NUMA node."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.allocation.allocate import RefusalRule, RefusedError, allocate, index
from sgpud.core.allocation.preference import prefer
from sgpud.core.gpu.observations import Sample
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.full_guard import FRESH_FOR
from sgpud.core.planning.node import Node, measured
from sgpud.core.planning.plan import Plan, Pool
from sgpud.core.sharing.rules import (
    Advertise,
    InjectionMethod,
    InjectionSettings,
    Multiple,
    Placement,
    ShareTerms,
    Sharing,
)
from sgpud.core.sharing.share_id import memory_stem, parse_share_id, share_id
from tests.core.values import GIB, POOL, checkpoint, gpu, holder, node, planned, served, uuid


def shared(**rest: Any) -> Sharing:
    """Ten places per GPU."""
    found = Sharing(
        default=ShareTerms(POOL, 10), injection=InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)
    )
    return evolve(found, **rest)


def free(pool: Pool) -> list[str]:
    """The ids that the kubelet can choose from."""
    return [
        share_id(group.uuid, number)
        for group in pool.groups
        for number in group.healthy - group.held
    ]


def gpus_of(ids: Sequence[str]) -> list[int]:
    """The GPUs of some ids, by number."""
    return sorted({int(one[4:12], 16) for one in ids})


def used(of: Node, *gigabytes: float, now: float = 5.0) -> Node:
    """The node after so many GiB were measured on GPU 0, GPU 1, and so on."""
    samples = [Sample(uuid(n), int(size * GIB)) for n, size in enumerate(gigabytes)]
    return advance(measured(of, samples, now), now, 1000.0 + now)


def choice(of: Node, size: int = 1, must: Sequence[str] = ()) -> list[int]:
    """The GPUs of the shares that are preferred."""
    found, pool, places = served(of)
    return gpus_of(prefer(found, pool, places, free(pool), must, size).ids)


def one_node(placement: Placement = Placement.SPREAD, *held: int) -> Node:
    """Three GPUs of which so many shares are held."""
    known = [holder({uuid(n): IntSet.span(0, count)}, per_gpu=10) for n, count in enumerate(held)]
    return node(shared(placement=placement), [gpu(0), gpu(1), gpu(2)], checkpoint(*known))


# By what is held, then by what is measured. ------------------------------------------------------


@pytest.mark.parametrize(
    ("placement", "held", "expected"),
    [
        (Placement.SPREAD, (2, 1, 3), 1),
        (Placement.PACKED, (2, 1, 3), 2),
        (Placement.PACKED, (2, 1, 10), 0),
        (Placement.SPREAD, (0, 0, 0), 0),
        (Placement.PACKED, (0, 0, 0), 0),
    ],
)
def test_first_by_the_fraction_that_is_held(
    placement: Placement, held: tuple[int, ...], expected: int
) -> None:
    assert choice(one_node(placement, *held)) == [expected]


@pytest.mark.parametrize(
    ("placement", "measured_use", "expected"),
    [
        (Placement.SPREAD, (10, 4, 30), 1),
        (Placement.PACKED, (10, 4, 30), 2),
        (Placement.SPREAD, (3.9, 2.1, 3), 0),  # all in one step of 2 GiB: the UUID decides
        (Placement.SPREAD, (4.1, 4, 30), 1),
    ],
)
def test_then_by_measured_free_memory_in_steps(
    placement: Placement, measured_use: tuple[float, ...], expected: int
) -> None:
    assert choice(used(one_node(placement, 1, 1, 1), *measured_use)) == [expected]


def test_what_is_held_comes_before_what_is_measured() -> None:
    assert choice(used(one_node(Placement.SPREAD, 1, 2, 2), 40, 0, 0)) == [0]


def test_an_old_measurement_counts_no_more() -> None:
    of = used(one_node(), 30, 0, 0)
    assert choice(of) == [1]
    late = advance(of, 5.0 + FRESH_FOR, 1005.0 + FRESH_FOR)
    assert choice(late) == [0]
    assert choice(advance(of, 4.9 + FRESH_FOR, 1005.0 + FRESH_FOR)) == [1]


def test_a_gpu_without_a_measurement_comes_after_those_with_one() -> None:
    for placement in Placement:
        of = one_node(placement)
        of = advance(measured(of, [Sample(uuid(2), 39 * GIB)], 1.0), 1.0, 1001.0)
        assert choice(of) == [2]


def test_memory_shares_on_equal_room_go_where_more_is_free() -> None:
    config = shared(default=ShareTerms(POOL, 100, GIB))
    of = used(node(config, [gpu(0), gpu(1), gpu(2)]), 20, 5, 10)
    found, pool, places = served(of)
    asked = [share_id(memory_stem(POOL), number) for number in range(3)]
    assert allocate(found, pool, places, asked).gpu == uuid(1)


# On one NUMA node. -------------------------------------------------------------------------------


def two_nodes(**rest: Any) -> Node:
    """Six GPUs, the even ones on NUMA node 0."""
    return node(shared(numa=True, **rest), [gpu(n) for n in range(6)])


@pytest.mark.parametrize("multiple", [Multiple.DISTINCT, Multiple.ANY])
def test_several_gpus_are_of_one_numa_node(multiple: Multiple) -> None:
    of = used(two_nodes(multiple=multiple), 0, 0, 30, 0, 30, 0)
    # One by one it would be 0 and 1; the best two of one node are 1 and 3.
    assert choice(of, 2) == [1, 3]
    assert choice(evolve(of, sharing=shared(multiple=multiple)), 2) == [0, 1]


def test_where_no_numa_node_has_enough_all_of_them_count() -> None:
    assert choice(two_nodes(), 4) == [0, 1, 2, 3]


def test_what_must_be_in_it_says_which_numa_node() -> None:
    assert choice(two_nodes(), 3, [share_id(uuid(3), 0)]) == [1, 3, 5]


def test_one_share_is_not_moved_by_numa() -> None:
    of = used(two_nodes(), 30, 0, 0, 0, 0, 0)
    assert choice(of) == [1]


# Whatever is asked. ------------------------------------------------------------------------------

configurations = st.builds(
    shared,
    placement=st.sampled_from(Placement),
    multiple=st.sampled_from(Multiple),
    numa=st.booleans(),
    advertise=st.sampled_from(Advertise),
    default=st.sampled_from([ShareTerms(POOL, 4), ShareTerms(POOL, 100, 10 * GIB)]),
)
helds = st.lists(st.integers(0, 4), min_size=1, max_size=5)
uses = st.lists(st.sampled_from([0.0, 1.0, 20.0, 39.0]), max_size=5)


def random_node(config: Sharing, held: list[int], use: list[float]) -> Node:
    """As many GPUs as there are numbers of held shares."""
    size = config.default.share_memory
    known = [
        evolve(
            holder({uuid(n): IntSet.span(0, count)}, per_gpu=4),
            sizes={uuid(n): size} if size else {},
        )
        for n, count in enumerate(held)
        if count
    ]
    return used(node(config, [gpu(n) for n in range(len(held))], checkpoint(*known)), *use)


@given(configurations, helds, uses, st.data(), st.randoms(use_true_random=False))
def test_exactly_what_was_asked_for_and_the_same_for_every_order(
    config: Sharing, held: list[int], use: list[float], data: st.DataObject, random: object
) -> None:
    found, pool, places = served(random_node(config, held, use))
    there = free(pool)
    size = data.draw(st.integers(0, len(there)), "size")
    must = data.draw(st.lists(st.sampled_from(there), max_size=size, unique=True)) if size else []
    chosen = prefer(found, pool, places, there, must, size).ids
    assert len(set(chosen)) == len(chosen) == size
    assert set(must) <= set(chosen) <= set(there)
    for part in (there, must):
        random.shuffle(part)  # type: ignore[attr-defined]
    assert set(prefer(found, pool, places, there, must, size).ids) == set(chosen)


@given(configurations, helds, uses, st.data())
def test_what_can_be_given_is_given(
    config: Sharing, held: list[int], use: list[float], data: st.DataObject
) -> None:
    """Where any choice of the kubelet's would be granted, the preferred one is."""
    found, pool, places = served(random_node(config, held, use))
    there = free(pool)
    size = data.draw(st.integers(1, 3))
    if len(there) < size:
        return
    chosen = prefer(found, pool, places, there, (), size).ids
    if not _granted(found, pool, chosen):
        assert not any(_granted(found, pool, ids) for ids in combinations(there, size))


def _granted(found: Plan, pool: Pool, ids: Sequence[str]) -> bool:
    try:
        allocate(found, pool, index(pool), ids)
    except RefusedError as refusal:
        assert refusal.rule is RefusalRule.MULTIPLE  # noqa: PT017
        return False
    return all(parse_share_id(one) for one in ids)


def test_a_plan_without_measurements_has_none() -> None:
    found = planned(one_node())
    assert [group.measured for group in found.pools[0].groups] == [None] * 3
