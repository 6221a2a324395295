"""Memory shares: what they count, what is advertised, and that nothing is ever split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.allocation.allocate import Allocation, RefusalRule, RefusedError, allocate, index
from sgpud.core.allocation.injection import GpuAccess, NodeHost
from sgpud.core.allocation.preference import prefer
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.holdings import CheckpointState, Holder
from sgpud.core.planning.listing import DRAIN_FOR, ListedShares, Listing
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Availability, Plan, Pool
from sgpud.core.sharing.limits import LimitError, TooLargeError, TooManyError, check_size
from sgpud.core.sharing.rules import (
    Advertise,
    GpuRule,
    InjectionMethod,
    InjectionSettings,
    Multiple,
    ShareTerms,
    Sharing,
)
from sgpud.core.sharing.share_id import share_id
from tests.core.values import (
    GIB,
    OTHER,
    POOL,
    checkpoint,
    gpu,
    group_of,
    holder,
    ids,
    node,
    planned,
    pool_of,
    served,
    uuid,
)

MIB = 2**20


def memory(size: int = GIB, **rest: Any) -> Sharing:
    """A configuration of memory shares."""
    injection = InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)
    return evolve(Sharing(default=ShareTerms(POOL, 100, size), injection=injection), **rest)


def by_memory(uuid_: str, numbers: IntSet, size: int = GIB) -> Holder:
    """A container that was given memory shares."""
    return evolve(holder({uuid_: numbers}, per_gpu=40), sizes={uuid_: size})


# How many there are. -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "reserved", "reserve", "size", "count"),
    [
        (40 * GIB, 0, 0, GIB, 40),
        (40 * GIB, 512 * MIB, 0, GIB, 39),
        (40 * GIB, 512 * MIB, 512 * MIB, GIB, 39),
        (40 * GIB, 512 * MIB, 513 * MIB, GIB, 38),
        (24 * GIB, 0, 0, 5 * GIB, 4),
        (GIB, 0, 0, 2 * GIB, 0),
        (GIB, 0, 2 * GIB, 64 * MIB, 0),
        (16 * GIB, 0, 0, 64 * MIB, 256),
    ],
)
def test_as_many_shares_as_fit_into_what_is_left(
    total: int, reserved: int, reserve: int, size: int, count: int
) -> None:
    config = memory(size, reserve_memory=reserve)
    of = node(config, [gpu(0, memory=total, reserved=reserved)])
    groups = pool_of(planned(of)).groups
    assert sum(len(group.active) for group in groups) == count


def test_a_gpu_smaller_than_a_share_is_noted() -> None:
    found = planned(node(memory(2 * GIB), [gpu(0, memory=GIB)]))
    assert "smaller than one share" in found.notes[0]


def test_too_many_shares_are_refused_with_the_arithmetic() -> None:
    big = gpu(0, memory=80 * GIB, reserved=GIB)
    config = memory(256 * MIB, reserve_memory=GIB)
    with pytest.raises(TooManyError) as caught:
        check_size(config, [big])
    assert f"{uuid(0)}: (80GiB - 1GiB kept by the driver - 1GiB reserve_memory) / 256MiB" in str(
        caught.value
    )
    assert "= 312 shares" in str(caught.value)
    assert caught.value.key == "sharing.share_memory"
    check_size(evolve(config, allow_large_status=True), [big])


def test_the_message_limit_names_the_key_that_counts() -> None:
    many = [gpu(number, memory=700 * GIB) for number in range(8)]
    with pytest.raises(TooLargeError, match="Raise share_memory") as caught:
        check_size(memory(64 * MIB, allow_large_status=True), many)
    assert caught.value.key == "sharing.share_memory"
    assert issubclass(TooLargeError, LimitError)


def test_at_start_too_many_shares_list_the_held_ones_only() -> None:
    known = checkpoint(by_memory(uuid(0), IntSet.of([3, 300]), 128 * MIB))
    found = planned(node(memory(128 * MIB), [gpu(0), gpu(1)], known))
    (only,) = pool_of(found).groups
    assert (only.uuid, only.active, only.healthy) == (uuid(0), IntSet.of([3, 300]), only.held)
    assert ["= 320 shares" in note and "held" in note for note in found.notes] == [True, True]


# What a container is told. -----------------------------------------------------------------------


def test_the_container_gets_its_bytes_and_the_grant_records_them() -> None:
    found, pool, places = served(node(memory(), [gpu(0), gpu(1)]))
    granted = allocate(found, pool, places, ids(0, *range(12)), at=1234.9)
    assert granted.answer.envs["SGPUD_MEMORY_BYTES"] == str(12 * GIB)
    assert granted.answer.envs["SGPUD_SHARES"] == "12"
    assert granted.answer.envs["SGPUD_SINCE"] == "1234"
    assert granted.sizes == {uuid(0): GIB}


def test_places_carry_no_bytes() -> None:
    config = Sharing(injection=InjectionSettings(InjectionMethod.NVIDIA_RUNTIME))
    found, pool, places = served(node(config, [gpu(0)]))
    granted = allocate(found, pool, places, ids(0, 5))
    assert "SGPUD_MEMORY_BYTES" not in granted.answer.envs
    assert "SGPUD_SINCE" not in granted.answer.envs
    assert granted.sizes == {}


def test_a_split_is_refused_with_the_room_of_each_gpu() -> None:
    known = checkpoint(by_memory(uuid(1), IntSet.span(0, 30)))
    of = node(memory(advertise=Advertise.ALL), [gpu(0, memory=24 * GIB), gpu(1)], known)
    found, pool, places = served(of)
    with pytest.raises(RefusedError) as caught:
        allocate(found, pool, places, [*ids(0, 1, 2), *ids(1, 35)])
    assert caught.value.rule is RefusalRule.MULTIPLE
    assert (
        f"3 memory shares (3GiB) have to be of one GPU, but these fell on 2. Free now: {uuid(0)} 24"
        f" (24GiB), {uuid(1)} 10 (10GiB); shares: "
    ) in str(caught.value)


def test_multiple_is_always_the_same_gpu() -> None:
    for multiple in Multiple:
        found = planned(node(memory(multiple=multiple), [gpu(0)]))
        assert pool_of(found).multiple is Multiple.SAME


def test_a_pool_of_places_beside_keeps_its_own_multiple() -> None:
    rules = (GpuRule(uuid(1), OTHER, 10),)
    config = memory(rules=rules, injection=InjectionSettings(InjectionMethod.VOLUME_MOUNTS))
    found = planned(node(config, [gpu(0), gpu(1)]))
    assert pool_of(found, OTHER).multiple is Multiple.DISTINCT
    assert not pool_of(found, OTHER).memory
    assert len(group_of(found, 1, OTHER).healthy) == 10


# Beside what is held on other terms. -------------------------------------------------------------


def test_a_changed_size_leaves_room_in_bytes() -> None:
    known = checkpoint(by_memory(uuid(0), IntSet.span(0, 13)))
    found = planned(node(memory(4 * GIB), [gpu(0)], known))
    group = group_of(found, 0)
    # 40 GiB - 13 GiB = 27 GiB: six of 4 GiB, beside the thirteen that are held.
    assert (len(group.free), len(group.held), group.size) == (6, 13, 4 * GIB)


def test_places_of_another_pool_leave_room_in_bytes() -> None:
    taken = holder({uuid(0): IntSet.span(0, 25)}, resource=OTHER, per_gpu=100)
    found = planned(node(memory(), [gpu(0)], checkpoint(taken)))
    assert len(group_of(found, 0).free) == 30


def test_memory_that_is_held_takes_its_fraction_of_the_places() -> None:
    known = checkpoint(by_memory(uuid(0), IntSet.span(0, 10)))
    config = Sharing(
        default=ShareTerms(OTHER, 100), injection=InjectionSettings(InjectionMethod.VOLUME_MOUNTS)
    )
    found = planned(node(config, [gpu(0)], known))
    assert len(group_of(found, 0, OTHER).free) == 75
    assert len(group_of(found, 0).held) == 10


def test_a_dropped_memory_pool_gives_what_drains_at_its_size() -> None:
    before = node(memory(), [gpu(0)])
    config = Sharing(
        default=ShareTerms(OTHER, 100), injection=InjectionSettings(InjectionMethod.VOLUME_MOUNTS)
    )
    after = advance(evolve(before, sharing=config), 5.0, 1005.0)
    found = planned(after)
    pool = pool_of(found)
    granted = allocate(found, pool, index(pool), ids(0, 1, 2))
    assert granted.answer.envs[f"{pool.prefix}MEMORY_BYTES"] == str(2 * GIB)


def test_less_memory_than_was_listed_last_drains_in_two_steps() -> None:
    listed = Listing({(POOL, uuid(0)): ListedShares(IntSet.span(0, 40), size=GIB)})
    start = Node(
        memory(), (gpu(0, reserved=512 * MIB),), checkpoint=CheckpointState(), listing=listed
    )
    first = advance(start, 0.0, 1000.0)
    group = group_of(planned(first), 0)
    assert (len(group.active), group.draining) == (39, IntSet.of([39]))
    later = advance(first, DRAIN_FOR, 1000.0 + DRAIN_FOR)
    assert group_of(planned(later), 0).listed == IntSet.span(0, 39)


# What is advertised. -----------------------------------------------------------------------------


def test_only_the_roomiest_gpu_shows_its_free_shares() -> None:
    known = checkpoint(
        by_memory(uuid(0), IntSet.span(0, 12)), by_memory(uuid(1), IntSet.span(0, 5))
    )
    found = planned(node(memory(), [gpu(0), gpu(1), gpu(2, memory=24 * GIB)], known))
    assert [len(group.healthy) for group in pool_of(found).groups] == [12, 40, 0]
    assert group_of(found, 0).availability is Availability.WITHHELD
    assert uuid(1) in group_of(found, 2).reason


def test_a_full_node_shows_the_held_shares() -> None:
    known = checkpoint(by_memory(uuid(0), IntSet.span(0, 40)))
    found = planned(node(memory(), [gpu(0)], known))
    assert len(group_of(found, 0).healthy) == 40


def test_an_unhealthy_or_withheld_gpu_is_not_the_roomiest() -> None:
    access = {uuid(1): GpuAccess(cdi="nvidia.com/gpu=1")}
    config = memory(injection=InjectionSettings(InjectionMethod.CDI))
    of = evolve(node(config, [gpu(0, memory=80 * GIB), gpu(1)]), host=NodeHost(access=access))
    found = planned(of)
    assert [len(group.healthy) for group in pool_of(found).groups] == [0, 40]


def test_best_fit_takes_the_gpu_with_the_least_room_that_holds_the_request() -> None:
    known = checkpoint(
        by_memory(uuid(0), IntSet.span(0, 35)),
        by_memory(uuid(1), IntSet.span(0, 20)),
        by_memory(uuid(2), IntSet.span(0, 10)),
    )
    of = node(memory(advertise=Advertise.ALL), [gpu(0), gpu(1), gpu(2)], known)
    found, pool, places = served(of)
    free = _free(pool)
    for size, expected in ((5, 0), (6, 1), (20, 1), (21, 2), (30, 2)):
        chosen = prefer(found, pool, places, free, (), size).ids
        assert {one.partition("::")[0] for one in chosen} == {uuid(expected)}


# Over random histories. --------------------------------------------------------------------------

requests = st.integers(1, 45)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), requests, st.booleans()),
        st.tuples(st.just("end"), st.integers(0, 30), st.booleans()),
        st.tuples(st.just("size"), st.sampled_from([GIB, 2 * GIB, 3 * GIB]), st.booleans()),
    ),
    max_size=30,
)
several = st.lists(st.sampled_from([8, 16, 24, 40]), min_size=1, max_size=4).map(
    lambda sizes: [gpu(number, memory=size * GIB) for number, size in enumerate(sizes)]
)


@given(several, steps, st.sampled_from(Advertise), st.randoms(use_true_random=False))
def test_nothing_is_ever_split_and_what_is_shown_always_fits(
    gpus: Sequence[Gpu],
    history: list[tuple[str, int, bool]],
    advertise: Advertise,
    random: object,
) -> None:
    """`largest`: allocatable less requested is exactly the largest request that fits.

    The kubelet here asks for a preference, or takes any of the Healthy ids: where only one GPU
    shows free shares that makes no difference.
    """
    config = memory(advertise=advertise)
    pods: list[Holder] = []
    of = node(config, gpus)
    now = 0.0
    for what, number, asks in history:
        now += 100.0
        if what == "size":
            config = memory(number, advertise=advertise)
        elif what == "end" and pods:
            del pods[number % len(pods)]
        for _ in range(2):  # what drains is gone by the second
            now += DRAIN_FOR
            known = CheckpointState(tuple(pods), 1000.0 + now)
            of = advance(evolve(of, sharing=config, checkpoint=known), now, 1000.0 + now)
        found = planned(of, 1000.0 + now)
        pool = pool_of(found)
        _check_room(of, found, pool, gpus, pods)
        healthy = sum(len(group.healthy) for group in pool.groups)
        requested = sum(len(numbers) for pod in pods for numbers in pod.shares.values())
        fits = max(len(group.free) for group in pool.groups)
        if advertise is Advertise.LARGEST:
            assert healthy - requested == fits
        if what != "ask" or number > healthy - requested:
            continue
        free = _free(pool)
        if asks and number < len(free):
            chosen = prefer(found, pool, index(pool), free, (), number).ids
        else:
            chosen = list(free)
            random.shuffle(chosen)  # type: ignore[attr-defined]
            chosen = chosen[:number]
        try:
            granted = allocate(found, pool, index(pool), chosen)
        except RefusedError as refusal:
            assert advertise is Advertise.ALL
            assert not asks or number > fits or number == len(free)
            assert refusal.rule is RefusalRule.MULTIPLE  # noqa: PT017
            continue
        assert len(granted.shares) == 1
        pods.append(_pod(granted))


def _check_room(
    of: Node, found: Plan, pool: Pool, gpus: Sequence[Gpu], pods: Sequence[Holder]
) -> None:
    """No GPU's shares stand for more than it has, and what is left is less than one share."""
    size = of.partitions()[POOL, uuid(0)].size
    for one in gpus:
        group = next((g for g in pool.groups if g.uuid == one.uuid), None)
        taken = sum(
            len(numbers) * pod.sizes[on]
            for pod in pods
            for on, numbers in pod.shares.items()
            if on == one.uuid
        )
        left = (one.memory or 0) - taken - (len(group.free) if group else 0) * size
        assert 0 <= left < size
    assert found.pool(POOL) is pool


def _pod(granted: Allocation) -> Holder:
    return Holder("p", "c", POOL, granted.shares, granted.per_gpu, granted.sizes)


def _free(pool: Pool) -> list[str]:
    return [
        share_id(group.uuid, number)
        for group in pool.groups
        for number in group.healthy - group.held
    ]
