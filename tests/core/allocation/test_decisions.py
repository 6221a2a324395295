"""What is kept of each answer to the kubelet: counts per GPU, and no ids."""

import tracemalloc
from collections import deque

import pytest
from attrs import evolve

from sgpud.core.allocation.allocate import RefusalRule, RefusedError, allocate, index
from sgpud.core.allocation.decisions import (
    KEPT,
    LONGEST_TEXT,
    Decision,
    DecisionKind,
    GpuCount,
    GpuSnapshot,
    failed,
    given,
    gpu_snapshots,
    preferred,
    refused,
)
from sgpud.core.allocation.preference import prefer
from sgpud.core.intset import IntSet
from sgpud.core.planning.plan import Pool
from sgpud.core.sharing.rules import InjectionMethod, InjectionSettings, Multiple, Placement
from sgpud.core.sharing.share_id import memory_stem, share_id
from tests.core.values import (
    GIB,
    POOL,
    checkpoint,
    fallen,
    gpu,
    holder,
    ids,
    node,
    planned,
    pool_of,
    served,
    sharing,
    uuid,
)

DELIVERY = InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)
GPUS = [gpu(0), gpu(1)]
BOOKS = checkpoint(holder({uuid(0): IntSet.of([0, 1])}, per_gpu=4))


def test_a_snapshot_records_the_state_of_a_gpu() -> None:
    _, pool, _ = served(fallen(node(sharing(injection=DELIVERY), GPUS, BOOKS), uuid(1)))
    one, other = gpu_snapshots(pool)
    assert (one.uuid, one.availability, one.reason, one.shares, one.held) == (
        *(uuid(0), "available", "", 4, 2),
    )
    assert (other.availability, other.shares, other.held) == ("unhealthy", 4, 0)
    assert "79" in other.reason


def test_sights_that_did_not_change_are_kept() -> None:
    _, pool, _ = served(node(sharing(injection=DELIVERY), GPUS, BOOKS))
    more = checkpoint(*BOOKS.holders, holder({uuid(1): IntSet.of([3])}, per_gpu=4))
    _, after, _ = served(node(sharing(injection=DELIVERY), GPUS, more))
    first = gpu_snapshots(pool)
    second = gpu_snapshots(after, first)
    assert second[0] is first[0]
    assert second[1] == evolve(first[1], held=1)


def preference(pool: Pool, must: list[str], size: int, placement: Placement) -> Decision:
    found = planned(node(sharing(injection=DELIVERY, placement=placement), GPUS, BOOKS))
    offered = [*ids(0, 2, 3), *ids(1, 0, 1, 2, 3)]
    chosen = prefer(found, pool, index(pool), offered, must, size)
    return preferred(5.0, found, pool, gpu_snapshots(pool), chosen)


def test_a_preference_keeps_what_was_offered_and_what_was_chosen() -> None:
    found = planned(node(sharing(injection=DELIVERY), GPUS, BOOKS))
    pool = pool_of(found)
    one = preference(pool, [], 1, Placement.SPREAD)
    assert (one.at, one.kind, one.resource, one.asked) == (5.0, DecisionKind.PREFERENCE, POOL, 1)
    assert one.offered == (2, 4)
    assert one.parts == (GpuCount(uuid(1), 1, 0),)
    assert one.rule == "distinct, spread"
    packed = preference(pool, [], 1, Placement.PACKED)
    assert (packed.parts, packed.rule) == ((GpuCount(uuid(0), 1, 2),), "distinct, packed")


def test_what_must_be_included_counts_as_offered_and_chosen() -> None:
    found = planned(node(sharing(injection=DELIVERY), GPUS, BOOKS))
    one = preference(pool_of(found), ids(1, 2), 2, Placement.SPREAD)
    assert one.offered == (2, 4)
    assert one.parts == (GpuCount(uuid(0), 1, 2), GpuCount(uuid(1), 1, 2))


def test_memory_shares_are_given_by_best_fit_and_of_the_gpu_they_are_bound_to() -> None:
    settings = sharing(injection=DELIVERY)
    by_size = evolve(settings, default=evolve(settings.default, share_memory=10 * GIB))
    found, pool, places = served(node(by_size, GPUS))
    asked = [share_id(memory_stem(POOL), number) for number in (2, 1)]
    granted = allocate(found, pool, places, asked, 7.0)
    one = given(7.0, pool, gpu_snapshots(pool), granted)
    assert (one.rule, one.asked, one.parts) == ("best fit", 2, (GpuCount(uuid(0), 2, 1),))


def test_an_allocation_keeps_what_was_given() -> None:
    settings = sharing(injection=DELIVERY, multiple=Multiple.ANY)
    found, pool, places = served(node(settings, GPUS, BOOKS))
    granted = allocate(found, pool, places, [*ids(1, 3, 1), *ids(0, 2)], 7.0)
    one = given(7.0, pool, gpu_snapshots(pool), granted)
    assert (one.kind, one.asked, one.rule, one.offered) == (DecisionKind.ALLOCATION, 3, "any", ())
    assert one.parts == (GpuCount(uuid(0), 1, 2), GpuCount(uuid(1), 2, 1))


def test_a_refusal_keeps_rule_and_reason_and_counts_what_it_knows() -> None:
    _, pool, places = served(node(sharing(injection=DELIVERY), GPUS, BOOKS))
    asked = [*ids(1, 3, 2), "GPU-unknown::1", "not an id"]
    problem = RefusedError(RefusalRule.MULTIPLE, asked, "a" * 2 * LONGEST_TEXT + ": ")
    one = refused(7.0, POOL, asked, gpu_snapshots(pool), places, problem)
    assert (one.kind, one.asked, one.rule) == (DecisionKind.REFUSAL, 4, "multiple")
    assert one.parts == (GpuCount(uuid(1), 2, 2),)
    assert one.text == "a" * LONGEST_TEXT
    before_any_plan = refused(7.0, POOL, asked, (), None, problem)
    assert (before_any_plan.parts, before_any_plan.gpu_snapshots) == ((), ())


def test_a_failure_to_choose_is_kept_too() -> None:
    one = failed(1.0, POOL, 3, "ValueError('x')")
    assert (one.kind, one.asked, one.rule) == (DecisionKind.PREFERENCE, 3, "none")
    assert "ValueError('x')" in one.text


@pytest.mark.slow
def test_what_is_kept_has_a_bound_however_large_the_node_and_the_requests() -> None:
    gpus = [gpu(number) for number in range(16)]
    settings = sharing(60, injection=DELIVERY, multiple=Multiple.ANY)
    tracemalloc.start()
    try:
        kept: deque[Decision] = deque(maxlen=KEPT)
        seen: tuple[GpuSnapshot, ...] = ()
        before = tracemalloc.get_traced_memory()[0]
        for turn in range(KEPT // 10):
            held = checkpoint(holder({uuid(turn % 16): IntSet.span(0, 1 + turn % 40)}, per_gpu=60))
            found, pool, places = served(node(settings, gpus, held))
            seen = gpu_snapshots(pool, seen)
            wanted = [one for each in gpus for one in ids(each.index, *range(50, 60))]
            for at in range(10):
                granted = allocate(found, pool, places, wanted, 1.0 + at)
                kept.append(given(1.0 + at, pool, seen, granted))
            del found, pool, places, wanted, held
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(kept) == KEPT
    assert grown < 4 * 2**20
