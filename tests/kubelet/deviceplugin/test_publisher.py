"""The shelf: what may be put on it, and what is kept from the plan before."""

from attrs import evolve

from sgpud.bridge import Subscription
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.core.sharing.rules import GpuRule, Sharing
from sgpud.kubelet.deviceplugin.publisher import ServedPool, Snapshot, SnapshotPublisher
from tests.core.values import OTHER, POOL, fallen, gpu, grant, node, planned, sharing, uuid

FREE = IntSet.of([1])


def configured(config: Sharing, before: Node | None = None, at: float = 0.0) -> Node:
    if before is None:
        return node(config, [gpu(0, fake=True), gpu(1, fake=True)])
    return advance(evolve(before, sharing=config), at, 1000.0 + at)


def plan_of(factor: int = 4, *rules: GpuRule) -> Plan:
    return planned(configured(sharing(factor, *rules)))


def publisher(plan: Plan | None = None) -> SnapshotPublisher:
    made = SnapshotPublisher()
    assert made.put(plan or plan_of())
    return made


def served(on: SnapshotPublisher, resource: str = POOL) -> ServedPool:
    assert on.snapshot is not None
    return on.snapshot.pools[resource]


def note(
    on: SnapshotPublisher, numbers: IntSet, *, resource: str = POOL, on_gpu: str = uuid(0)
) -> None:
    """Give these shares, as a worker does."""
    on.published.decide(lambda _: (None, [grant({on_gpu: numbers}, resource=resource)]))


def test_nothing_is_served_before_the_first_plan() -> None:
    assert SnapshotPublisher().snapshot is None
    assert SnapshotPublisher().grants() == []


def test_a_plan_is_served_with_its_message_and_its_index() -> None:
    found = served(publisher())
    assert len(found.index.places) == 8
    assert found.message.data.count(b"Healthy") == 8
    assert found.resends == 0


def test_the_same_plan_keeps_the_very_message_and_index() -> None:
    on = publisher()
    before = served(on)
    assert on.put(plan_of())
    assert served(on).message is before.message
    assert served(on).index is before.index


def test_another_health_keeps_the_index_and_rebuilds_the_message() -> None:
    healthy = configured(sharing())
    on = publisher(planned(healthy))
    before = served(on)
    assert on.put(planned(fallen(healthy, uuid(0))))
    assert served(on).index is before.index
    assert served(on).message.data != before.message.data
    assert served(on).message.data.count(b"Unhealthy") == 4


def test_other_ids_rebuild_both_but_reuse_unchanged_gpus() -> None:
    on = publisher()
    before = served(on)
    assert on.put(plan_of(4, GpuRule(uuid(1), factor=9)))
    found = served(on)
    assert found.index is not before.index
    assert found.message.fragments[0] is before.message.fragments[0]
    assert found.message.fragments[1] is not before.message.fragments[1]


def test_a_grant_is_collected_once() -> None:
    on = publisher()
    note(on, FREE)
    assert [given.shares for given in on.grants()] == [{uuid(0): FREE}]
    assert on.grants() == []


def test_a_plan_that_lists_what_was_granted_meanwhile_is_served() -> None:
    on = publisher()
    note(on, FREE)
    assert on.put(plan_of(9))


def test_a_plan_without_what_was_granted_meanwhile_is_refused() -> None:
    on = publisher()
    before = on.snapshot
    note(on, IntSet.of([0, 3]))
    assert not on.put(plan_of(3))
    assert on.snapshot is before
    assert not on.put(plan_of(4, GpuRule(uuid(0), resource=OTHER)))
    assert not on.put(planned(configured(sharing(resource=OTHER))))
    assert not on.put(planned(node(sharing(), [gpu(1, fake=True)])))
    assert on.snapshot is before


def test_a_refused_plan_can_be_served_once_its_grant_was_collected() -> None:
    on = publisher()
    note(on, IntSet.of([3]))
    assert not on.put(plan_of(3))
    on.grants()
    assert on.put(plan_of(3))


def test_what_drains_is_still_listed_and_may_have_been_granted() -> None:
    before = configured(sharing())
    on = publisher(planned(before))
    note(on, IntSet.of([3]))
    assert on.put(planned(configured(sharing(1), before)))
    assert len(served(on).index.places) == 8


def test_later_plans_keep_the_count_of_resends() -> None:
    on = publisher()
    before = served(on)
    on.resend()
    on.resend()
    assert served(on).resends == 2
    assert served(on).message is before.message
    assert on.put(plan_of(9))
    assert served(on).resends == 2


def test_resending_keeps_grants_and_needs_a_plan() -> None:
    empty = SnapshotPublisher()
    empty.resend()
    assert empty.snapshot is None
    on = publisher()
    note(on, FREE)
    on.resend()
    assert len(on.grants()) == 1


def test_a_subscriber_sees_only_the_latest_snapshot() -> None:
    on = publisher()
    follower: Subscription[Snapshot | None] = on.subscribe()
    seen = iter(follower)
    assert next(seen) is on.snapshot
    on.put(plan_of(5))
    on.put(plan_of(6))
    assert next(seen) is on.snapshot
    follower.close()
    assert list(seen) == []
