from fractions import Fraction
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.allocation.injection import GpuAccess, NodeHost
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.holdings import Holder
from sgpud.core.planning.listing import DRAIN_FOR
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Availability, Plan, plan
from sgpud.core.sharing.rules import GpuRule, InjectionMethod, InjectionSettings, Sharing
from tests.core.values import (
    OTHER,
    POOL,
    checkpoint,
    fallen,
    gpu,
    grant,
    group_of,
    holder,
    mig,
    node,
    planned,
    pool_of,
    sharing,
    some_numbers,
    uuid,
)

RUNTIME = InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)
products = st.sampled_from(["Tesla T4", "NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3"])
fleets = st.lists(products, max_size=5).map(
    lambda names: [gpu(number, name) for number, name in enumerate(names)]
)
rules = st.builds(
    GpuRule,
    st.sampled_from(["*", "Tesla*", "NVIDIA*", "0", uuid(1)]),
    st.sampled_from([None, POOL, OTHER]),
    st.sampled_from([None, 1, 3, 7]),
)
configs = st.builds(
    lambda factor, rules, deny: sharing(factor, *rules, deny=tuple(deny), injection=RUNTIME),
    st.integers(1, 9),
    st.lists(rules, max_size=3),
    st.lists(st.sampled_from(["1", "Tesla*"]), max_size=1),
)
holders = st.lists(
    st.builds(
        holder,
        st.dictionaries(st.sampled_from([uuid(0), uuid(1), uuid(9)]), some_numbers, max_size=2),
        resource=st.sampled_from([POOL, OTHER]),
        per_gpu=st.sampled_from([None, 4, 100]),
    ),
    max_size=3,
)


def ids(found: Plan) -> list[tuple[str, int]]:
    return [
        (group.uuid, number)
        for pool in found.pools
        for group in pool.groups
        for number in group.listed
    ]


@given(configs, fleets, holders)
def test_ids_are_unique_over_all_pools_and_gpus(
    config: Sharing, gpus: list[Gpu], held: list[Holder]
) -> None:
    found = ids(planned(node(config, gpus, checkpoint(*held))))
    assert len(found) == len(set(found))


@given(configs, fleets, holders, st.data())
def test_the_order_of_gpus_and_holders_does_not_matter(
    config: Sharing, gpus: list[Gpu], held: list[Holder], data: st.DataObject
) -> None:
    expected = planned(node(config, gpus, checkpoint(*held)))
    mixed = data.draw(st.permutations(gpus))
    assert planned(node(config, mixed, checkpoint(*held))) == expected
    if len({one.resource for one in held}) < 2:  # two pools may claim one id: the first has it
        others = data.draw(st.permutations(held))
        assert planned(node(config, mixed, checkpoint(*others))) == expected


@given(configs, fleets)
def test_every_gpu_has_as_many_shares_as_its_first_rule_says(
    config: Sharing, gpus: list[Gpu]
) -> None:
    found = planned(node(config, gpus))
    for one in gpus:
        terms = config.terms(one)
        groups = [(p.resource, g) for p in found.pools for g in p.groups if g.uuid == one.uuid]
        assert [(resource, len(g.free)) for resource, g in groups] == (
            [(terms.resource, terms.factor)] if terms else []
        )
        for _, group in groups:
            assert group.healthy == group.listed == group.active
            assert group.parts == group.factor


@given(configs, fleets, holders)
def test_a_plan_is_never_without_a_held_share(
    config: Sharing, gpus: list[Gpu], held: list[Holder]
) -> None:
    found = planned(node(config, gpus, checkpoint(*held)))
    listed = set(ids(found))
    for one in held:
        for name, numbers in one.shares.items():
            assert {(name, number) for number in numbers} <= listed


@given(configs, fleets, holders)
def test_a_lost_gpu_has_no_healthy_share_and_takes_none_of_another(
    config: Sharing, gpus: list[Gpu], held: list[Holder]
) -> None:
    begun = node(config, gpus, checkpoint(*held))
    failed = planned(fallen(begun, uuid(0)))
    for before, after in zip(planned(begun).pools, failed.pools, strict=True):
        for was, will in zip(before.groups, after.groups, strict=True):
            assert was.listed == will.listed
            if will.uuid == uuid(0):
                assert (will.availability, len(will.healthy)) == (Availability.UNHEALTHY, 0)
            else:
                assert was.healthy == will.healthy


@pytest.mark.parametrize("missing", ["sharing", "gpus", "checkpoint"])
def test_nothing_is_planned_while_a_fact_is_unknown(missing: str) -> None:
    known = node(sharing(), [gpu(0)])
    assert plan(known, 0.0) is not None
    assert plan(evolve(known, **dict[str, Any]({missing: None})), 0.0) is None


def test_a_gpu_that_has_gone_shows_its_held_shares_unhealthy_and_why() -> None:
    begun = node(
        sharing(injection=RUNTIME), [gpu(0)], checkpoint(holder({uuid(0): IntSet.of([1])}))
    )
    gone = advance(evolve(begun, gpus=()), 1.0, 1000.0)
    group = group_of(planned(gone), 0)
    assert (group.availability, group.reason) == (
        Availability.UNHEALTHY,
        "the GPU is no longer on this node",
    )
    assert (group.active, group.draining) == (IntSet.of([1]), IntSet.of([0, 2, 3]))
    assert (group.surplus, len(group.healthy)) == (1, 0)
    assert pool_of(planned(gone)).dropped
    later = advance(gone, 1.0 + DRAIN_FOR, 1030.0)
    assert group_of(planned(later), 0).listed == IntSet.of([1])


def test_while_the_probe_is_away_free_shares_are_withheld_and_held_ones_healthy() -> None:
    begun = node(
        sharing(injection=RUNTIME), [gpu(0)], checkpoint(holder({uuid(0): IntSet.of([1])}))
    )
    group = group_of(planned(evolve(begun, probe_problem="released")), 0)
    assert (group.availability, group.reason) == (Availability.WITHHELD, "released")
    assert (group.healthy, len(group.listed)) == (IntSet.of([1]), 4)


def test_a_gpu_that_the_method_cannot_hand_over_is_withheld() -> None:
    host = NodeHost(
        access={uuid(0): GpuAccess(cdi="nvidia.com/gpu=0"), uuid(1): GpuAccess(cdi_missing="no")}
    )
    begun = node(sharing(injection=InjectionSettings(InjectionMethod.CDI)), [gpu(0), gpu(1)])
    found = planned(evolve(begun, host=host))
    assert group_of(found, 0).availability is Availability.AVAILABLE
    assert group_of(found, 1).availability is Availability.WITHHELD
    assert group_of(found, 1).reason == "cdi: no"


def test_draining_shares_of_a_gpu_no_longer_shared_use_the_same_method() -> None:
    begun = node(sharing(injection=InjectionSettings(InjectionMethod.CDI)), [gpu(0)])
    denied = evolve(
        begun, sharing=sharing(injection=InjectionSettings(InjectionMethod.CDI), deny=("0",))
    )
    missing = evolve(denied, host=NodeHost(access={uuid(0): GpuAccess(cdi_missing="no spec")}))
    assert planned(missing).chosen is not None
    assert group_of(planned(missing), 0).reason == "cdi: no spec"


def test_a_pool_without_a_share_is_still_one_while_it_is_configured() -> None:
    full = checkpoint(holder({uuid(0): IntSet.of([1])}, resource=OTHER, per_gpu=1))
    found = planned(node(sharing(2, injection=RUNTIME), [gpu(0)], full))
    assert (pool_of(found).groups, pool_of(found).dropped) == ((), False)
    assert pool_of(found, OTHER).dropped
    assert group_of(found, 0, OTHER).elsewhere == 0


def test_a_group_knows_what_other_pools_hold_of_its_gpu() -> None:
    half = checkpoint(holder({uuid(0): IntSet.of([50])}, resource=OTHER, per_gpu=2))
    group = group_of(planned(node(sharing(4, injection=RUNTIME), [gpu(0)], half)), 0)
    assert (group.elsewhere, len(group.free)) == (Fraction(1, 2), 2)


def test_shares_of_a_dropped_pool_keep_their_size() -> None:
    old = node(sharing(100, resource=OTHER, injection=RUNTIME), [gpu(0)])
    renamed = advance(evolve(old, sharing=sharing(20, injection=RUNTIME)), 1.0, 1001.0)
    assert group_of(planned(renamed), 0, OTHER).parts == 100
    granted = grant({uuid(0): IntSet.of([3])}, resource=OTHER, per_gpu=100, at=1001.0)
    later = advance(evolve(renamed, grants=(granted,)), 40.0, 1040.0)
    assert (group_of(planned(later), 0, OTHER).parts, len(group_of(planned(later), 0).free)) == (
        100,
        19,
    )


def test_pools_have_variables_of_their_own_and_numa_as_configured() -> None:
    config = sharing(4, GpuRule("Tesla*", resource=OTHER), numa=True, injection=RUNTIME)
    found = planned(node(config, [gpu(0), gpu(1, "Tesla T4")]))
    assert pool_of(found).prefix == "SGPUD_SHARED_GPU_"
    assert pool_of(found, OTHER).prefix == "SGPUD_SHARED_A100_"
    assert all(pool.numa for pool in found.pools)
    alone = planned(node(sharing(injection=RUNTIME), [gpu(0)]))
    assert (pool_of(alone).prefix, pool_of(alone).numa) == ("SGPUD_", False)


def test_groups_come_by_index_and_gpus_that_have_gone_last() -> None:
    parent = gpu(1)
    begun = node(sharing(injection=RUNTIME), [gpu(2), mig(parent, 2), mig(parent, 1), gpu(0)])
    gone = evolve(begun, gpus=tuple(one for one in begun.gpus or () if one.uuid != uuid(0)))
    expected = [mig(parent, 1).uuid, mig(parent, 2).uuid, uuid(2), uuid(0)]
    assert [one.uuid for one in pool_of(planned(gone)).groups] == expected


def test_the_holders_are_awaited_while_a_share_is_draining_surplus_or_unconfirmed() -> None:
    begun = node(sharing(2, injection=RUNTIME), [gpu(0)])
    assert not planned(begun).waiting
    shrunk = sharing(1, injection=RUNTIME)
    assert planned(advance(evolve(begun, sharing=shrunk), 1.0, 1001.0)).waiting
    surplus = node(shrunk, [gpu(0)], checkpoint(holder({uuid(0): IntSet.of([0, 1])}, per_gpu=2)))
    assert planned(surplus).waiting
    granted = evolve(begun, grants=(grant({uuid(0): IntSet.of([0])}, at=1000.0),))
    assert not planned(granted, 1005.0).waiting
    assert planned(granted, 1010.0).waiting


def test_notes_say_what_a_person_should_know() -> None:
    config = sharing(10_000, allow=("*", "GPU-none"), injection=RUNTIME)
    found = planned(node(config, [gpu(number) for number in range(7)]))
    assert found.notes[0] == 'gpus.allow: "GPU-none" matches no GPU of this node'
    assert found.notes[1].startswith(f"{uuid(6)} gets no more shares of {POOL}: 10000 would take")
    nothing = planned(node(sharing(deny=("*",), injection=RUNTIME), [gpu(0)]))
    assert nothing.notes == ("no GPU is shared: [gpus] allow and deny leave out all there are (1)",)
    assert planned(Node(sharing(), (), checkpoint=checkpoint())).notes == ()


def test_a_plan_of_an_empty_node_has_no_pool() -> None:
    found = planned(node(sharing(), []))
    assert (found.pools, found.pool(POOL)) == ((), None)
