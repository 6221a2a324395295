from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.allocation.allocate import (
    SHOWN,
    Allocation,
    RefusalRule,
    RefusedError,
    allocate,
    choose,
    requested,
)
from sgpud.core.allocation.injection import GpuAccess, NodeHost
from sgpud.core.allocation.pending import PendingGrants
from sgpud.core.health.node_health import cordoned
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import LATE, advance
from sgpud.core.planning.holdings import Grant
from sgpud.core.planning.listing import DRAIN_FOR
from sgpud.core.planning.node import Node
from sgpud.core.sharing.rules import GpuRule, InjectionMethod, InjectionSettings, Multiple
from sgpud.core.sharing.share_id import share_id
from tests.core.values import (
    OTHER,
    POOL,
    checkpoint,
    fallen,
    gpu,
    grant,
    holder,
    ids,
    node,
    served,
    sharing,
    uuid,
)

RUNTIME = InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)
FLEET = [gpu(0), gpu(1)]


def fleet(factor: int = 4, **config: Any) -> Node:
    """Two GPUs."""
    return node(sharing(factor, **{"injection": RUNTIME, **config}), FLEET)


def refused(of: Node, asked: list[str], resource: str = POOL) -> RefusedError:
    plan, pool, known = served(of, resource)
    with pytest.raises(RefusedError) as caught:
        allocate(plan, pool, known, asked)
    return caught.value


requests = st.lists(
    st.sampled_from([*ids(0, 0, 1, 2), *ids(1, 0, 1, 2)]), min_size=1, max_size=4, unique=True
)


@given(requests, st.sampled_from(Multiple), st.data())
def test_what_fits_multiple_is_given_and_all_else_refused_in_any_order(
    asked: list[str], multiple: Multiple, data: st.DataObject
) -> None:
    plan, pool, known = served(fleet(multiple=multiple))
    gpus = {one.partition("::")[0] for one in asked}
    fits = {
        Multiple.DISTINCT: len(gpus) == len(asked),
        Multiple.SAME: len(gpus) == 1,
        Multiple.ANY: True,
        Multiple.REFUSE: len(asked) == 1,
    }[multiple]
    if fits:
        granted = allocate(plan, pool, known, asked)
        assert granted == allocate(plan, pool, known, data.draw(st.permutations(asked)))
        assert {share_id(*one) for one in _pairs(granted)} == set(asked)
    else:
        refusal = refused(fleet(multiple=multiple), asked)
        again = refused(fleet(multiple=multiple), data.draw(st.permutations(asked)))
        assert (refusal.rule, refusal.invalid) == (RefusalRule.MULTIPLE, False)
        assert str(refusal) == str(again)


def test_same_gives_whole_gpus_where_no_gpu_has_so_many_shares() -> None:
    plan, pool, known = served(fleet(2, multiple=Multiple.SAME))
    granted = allocate(plan, pool, known, ids(0, 0, 1) + ids(1, 0, 1))
    assert granted.shares == {uuid(0): IntSet.of([0, 1]), uuid(1): IntSet.of([0, 1])}
    assert granted.answer.envs["SGPUD_GPU_UUIDS"] == f"{uuid(0)},{uuid(1)}"


def test_same_gives_no_small_whole_gpus_for_what_a_larger_one_could_hold() -> None:
    mixed = [GpuRule(uuid(0), factor=2), GpuRule(uuid(1), factor=2), GpuRule(uuid(2), factor=4)]
    config = sharing(4, *mixed, multiple=Multiple.SAME, injection=RUNTIME)
    there = node(config, [gpu(0), gpu(1), gpu(2)])
    assert refused(there, ids(0, 0, 1) + ids(1, 0, 1)).rule is RefusalRule.MULTIPLE
    five = ids(0, 0, 1) + ids(2, 0, 1, 2)
    assert refused(there, five).rule is RefusalRule.MULTIPLE


def _pairs(granted: Allocation) -> list[tuple[str, int]]:
    return [(name, number) for name, numbers in granted.shares.items() for number in numbers]


def test_a_grant_names_shares_and_terms() -> None:
    plan, pool, known = served(fleet(4, multiple=Multiple.ANY))
    granted = allocate(plan, pool, known, ids(1, 3) + ids(0, 2, 0))
    assert granted.shares == {uuid(0): IntSet.of([0, 2]), uuid(1): IntSet.of([3])}
    assert granted.per_gpu == {uuid(0): 4, uuid(1): 4}
    assert granted.answer.envs["SGPUD_GPU_UUIDS"] == f"{uuid(0)},{uuid(1)}"
    assert granted.answer.envs["SGPUD_SHARES"] == "3"


def test_nothing_is_refused() -> None:
    refusal = refused(fleet(), [])
    assert (refusal.rule, refusal.invalid) == (RefusalRule.NOTHING, True)
    assert str(refusal) == "nothing: no share was requested"


@given(
    st.text().filter(lambda text: text not in ids(0, 0, 1, 2, 3) + ids(1, 0, 1, 2, 3)),
    st.booleans(),
)
def test_an_id_that_is_not_listed_is_refused_beside_any_that_is(text: str, first: bool) -> None:  # noqa: FBT001
    asked = [text, *ids(0, 0)] if first else [*ids(0, 0), text]
    refusal = refused(fleet(), asked)
    assert (refusal.rule, refusal.ids, refusal.invalid) == (RefusalRule.UNKNOWN, (text,), True)


def test_an_id_that_stands_twice_is_refused() -> None:
    refusal = refused(fleet(), ids(0, 1, 1))
    assert (refusal.rule, refusal.ids) == (RefusalRule.TWICE, tuple(ids(0, 1)))


def test_shares_of_a_lost_gpu_are_refused_with_the_reason() -> None:
    sick = fallen(fleet(multiple=Multiple.ANY), uuid(0))
    refusal = refused(sick, ids(0, 1) + ids(1, 1))
    assert (refusal.rule, refusal.ids, refusal.invalid) == (
        RefusalRule.UNHEALTHY,
        tuple(ids(0, 1)),
        False,
    )
    assert (
        str(refusal)
        == f"unhealthy: {uuid(0)}: XID 79: the GPU has fallen off the bus: {ids(0, 1)[0]}"
    )
    plan, pool, known = served(sick)
    assert allocate(plan, pool, known, ids(1, 1)).shares == {uuid(1): IntSet.of([1])}


def test_shares_of_a_gpu_that_has_gone_are_refused() -> None:
    gone = advance(evolve(fleet(), gpus=(gpu(1),)), 1.0, 1001.0)
    assert refused(gone, ids(0, 1)).rule is RefusalRule.UNHEALTHY


def test_a_gpu_that_the_method_cannot_hand_over_is_refused() -> None:
    host = NodeHost(
        access={uuid(0): GpuAccess(cdi="nvidia.com/gpu=0"), uuid(1): GpuAccess(cdi_missing="no")}
    )
    here = evolve(fleet(injection=InjectionSettings(InjectionMethod.CDI)), host=host)
    refusal = refused(here, ids(1, 0))
    assert (refusal.rule, refusal.invalid) == (RefusalRule.METHOD, False)
    assert str(refusal) == f"method: {uuid(1)}: cdi: no: {ids(1, 0)[0]}"


def test_a_refusal_by_multiple_says_what_fell_where() -> None:
    assert str(refused(fleet(), ids(0, 1, 0))) == (
        f"multiple: 2 shares are on 1 of the 2 GPUs ({uuid(0)}), but [sharing] multiple = "
        f'"distinct" means 2 different GPUs: {", ".join(ids(0, 0, 1))}'
    )
    assert '"same" means one GPU' in str(
        refused(fleet(multiple=Multiple.SAME), ids(0, 1) + ids(1, 0))
    )
    too_many = fleet(2, multiple=Multiple.SAME)
    assert "means whole GPUs" in str(refused(too_many, ids(0, 0, 1) + ids(1, 0)))
    assert '"refuse" allows 1' in str(refused(fleet(multiple=Multiple.REFUSE), ids(0, 1, 0)))


def test_a_message_names_the_first_ids_and_counts_the_rest() -> None:
    text = str(refused(fleet(20), ids(0, *range(20))))
    assert text.count("::") == SHOWN
    assert text.endswith("and 12 more")
    assert len(text) < 1024


def test_the_ids_of_a_long_named_stranger_are_cut() -> None:
    assert len(str(refused(fleet(), ["x" * 100_000]))) < 200


def reduced(to: int, at: float = 1.0, **config: Any) -> Node:
    """The fleet with fewer shares per GPU from `at` on."""
    return advance(
        evolve(fleet(), sharing=sharing(to, injection=RUNTIME, **config)), at, 1000.0 + at
    )


def later(of: Node, at: float) -> Node:
    return advance(of, at, 1000.0 + at)


def test_what_began_to_drain_a_moment_ago_is_given_and_then_no_more() -> None:
    draining = reduced(1)
    plan, pool, known = served(later(draining, 1.0 + LATE - 0.1))
    assert allocate(plan, pool, known, ids(0, 3)).shares == {uuid(0): IntSet.of([3])}
    full = later(evolve(draining, grants=(grant({uuid(0): IntSet.of([0])}, at=1001.0),)), 1 + LATE)
    assert refused(full, ids(0, 3)).rule is RefusalRule.ROOM
    refusal = refused(later(draining, 1.0 + DRAIN_FOR), ids(0, 3))
    assert refusal.rule is RefusalRule.UNKNOWN
    assert "not advertised here, now or in the last 30 s" in str(refusal)


def test_what_was_withheld_a_moment_ago_is_given_and_then_no_more() -> None:
    found = later(cordoned(fleet(), uuid(0), on=True), 1.0)
    plan, pool, known = served(later(found, 0.9 + LATE))
    assert allocate(plan, pool, known, ids(0, 3)).shares == {uuid(0): IntSet.of([3])}
    closed = later(found, 1.0 + LATE)
    refusal = refused(closed, ids(0, 3))
    assert (refusal.rule, refusal.invalid) == (RefusalRule.WITHHELD, False)
    assert "cordoned by the operator" in str(refusal)
    plan, pool, known = served(closed)
    assert allocate(plan, pool, known, ids(1, 3)).shares == {uuid(1): IntSet.of([3])}


def test_shares_that_begin_to_drain_on_a_withheld_gpu_are_not_given() -> None:
    found = later(cordoned(fleet(), uuid(0), on=True), 1.0)
    smaller = later(evolve(found, sharing=sharing(1, injection=RUNTIME)), 20.0)
    assert refused(smaller, ids(0, 3)).rule is RefusalRule.WITHHELD
    plan, pool, known = served(smaller)
    assert allocate(plan, pool, known, ids(1, 3))


def test_a_held_share_that_is_asked_for_is_free_but_not_beyond_what_its_gpu_has() -> None:
    """The kubelet gives an id twice only when its first holder has ended."""
    whole = checkpoint(holder({uuid(0): IntSet.span(0, 4)}, per_gpu=4))
    plan, pool, known = served(node(sharing(4, injection=RUNTIME), FLEET, whole))
    assert allocate(plan, pool, known, ids(0, 2)).shares == {uuid(0): IntSet.of([2])}
    shrunk = node(sharing(2, injection=RUNTIME), FLEET, whole)
    refusal = refused(shrunk, ids(0, 2))
    assert (refusal.rule, refusal.invalid) == (RefusalRule.ROOM, False)
    assert "as many of its shares are held as it has now (2)" in str(refusal)
    two = sharing(2, injection=RUNTIME, multiple=Multiple.SAME)
    of = node(two, FLEET, whole)
    assert refused(of, ids(0, 1, 2)).rule is RefusalRule.ROOM
    plan, pool, known = served(node(two, FLEET, checkpoint(holder({uuid(0): IntSet.span(0, 2)}))))
    assert len(allocate(plan, pool, known, ids(0, 0, 1)).shares[uuid(0)]) == 2


def test_a_held_share_of_a_cordoned_gpu_is_not_given_again() -> None:
    whole = checkpoint(holder({uuid(0): IntSet.span(0, 4)}, per_gpu=4))
    of = later(cordoned(node(sharing(4, injection=RUNTIME), FLEET, whole), uuid(0), on=True), 1.0)
    assert refused(later(of, 1.0 + LATE), ids(0, 2)).rule is RefusalRule.WITHHELD


def test_a_grant_that_the_plan_does_not_count_takes_its_room() -> None:
    three = checkpoint(holder({uuid(0): IntSet.of([0, 1, 2])}, per_gpu=4))
    plan, pool, known = served(node(sharing(4, injection=RUNTIME), FLEET, three))
    pending = PendingGrants()
    first = choose(plan, pool, requested(known, ids(0, 3)), pending)
    pending.note(first.grant(POOL, 1000.0), pool)
    assert not pending.has_room(pool.groups[0], IntSet.of([7]))
    # It has ended again: whoever is given its share has the room that it leaves.
    assert choose(plan, pool, requested(known, ids(0, 3)), pending) == first


def test_a_share_of_a_dropped_pool_is_given_on_its_old_terms_for_a_moment() -> None:
    old = fleet(100, resource=OTHER)
    renamed = later(evolve(old, sharing=sharing(20, injection=RUNTIME)), 1.0)
    plan, pool, known = served(renamed, OTHER)
    granted = allocate(plan, pool, known, ids(0, 5))
    assert granted.per_gpu == {uuid(0): 100}
    kept = Grant(OTHER, granted.shares, granted.per_gpu, 1001.0)
    after = later(evolve(renamed, grants=(kept,)), 40.0)
    assert refused(after, ids(0, 5), OTHER).rule is RefusalRule.ROOM


def test_one_gpu_s_uuid_may_begin_another_s() -> None:
    short, long = evolve(gpu(0), uuid="GPU-1"), evolve(gpu(1), uuid="GPU-1-bx")
    both = node(sharing(2, injection=RUNTIME, multiple=Multiple.ANY), [short, long])
    refusal = refused(fallen(both, "GPU-1"), ["GPU-1::0", "GPU-1-bx::0"])
    assert refusal.ids == ("GPU-1::0",)
