"""One node and its kubelet, and what the plan's four rules ask of every plan of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from attrs import define, frozen
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from sgpud.core.health.node_health import verdict
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.holdings import (
    CheckpointState,
    HeldShares,
    Holder,
    Key,
    elsewhere,
    held,
    held_shares,
)
from sgpud.core.planning.listing import DRAIN_FOR, EMPTY_FOR
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Availability, GpuShares, Plan, Pool, plan
from sgpud.core.sharing.share_id import listed_bytes, parse_share_id, share_id
from sgpud.kubelet.deviceplugin.messages import list_message
from tests.core.values import GIB, OTHER, POOL, THIRD, uuid

READ_WITHIN = 5.0
"""Seconds from the kubelet's writing until we have read what it wrote."""

Id = tuple[str, str, int]
"""(resource, stem, number)."""


resources = st.sampled_from([POOL, OTHER, THIRD])
SIZES = st.sampled_from([0, 0, 5 * GIB, 8 * GIB, 13 * GIB])
"""Bytes of one share, of GPUs that have 40 GiB; 0: shares are places."""
lies = st.lists(
    st.builds(
        Holder,
        pod=st.just("liar"),
        container=st.just("c"),
        resource=resources,
        shares=st.dictionaries(
            st.sampled_from([uuid(0), uuid(1), uuid(7)]),
            st.sets(st.integers(0, 15), min_size=1, max_size=3).map(IntSet.of),
            max_size=2,
        ),
        per_gpu=st.dictionaries(st.sampled_from([uuid(0), uuid(1)]), st.integers(1, 9), max_size=2),
        sizes=st.dictionaries(st.sampled_from([uuid(0), uuid(1)]), SIZES, max_size=2),
    ),
    max_size=3,
).map(tuple)
"""Holders that a checkpoint without truth names."""


@define
class Pod:
    """One container, as the kubelet knows it."""

    resource: str
    shares: Mapping[str, IntSet]
    per_gpu: Mapping[str, int]
    sizes: Mapping[str, int]
    gpu: str
    """The GPU that memory shares are bound to, or empty."""
    recorded_by: float
    recorded: bool = False
    doubtful: bool = False
    """A file without truth was read since: nobody can know any more that it holds."""

    @property
    def ids(self) -> set[Id]:
        return {(self.resource, gpu, one) for gpu, many in self.shares.items() for one in many}


@frozen
class Shown:
    """A list that the kubelet had, and when another took its place."""

    plan: Plan
    until: float


class Watched(RuleBasedStateMachine):
    """Publishes as the keeper does, and looks at every plan. What happens is its heir's to say."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.wall = 1_000_000.0
        self.node = Node()
        self.plan: Plan | None = None
        self.shown: list[Shown] = []
        self.kept_healthy: set[Id] = set()
        """What the kubelet's file says of our list before the last restart, where it is true."""
        self.pods: list[Pod] = []
        self.file: CheckpointState | None = None
        self.readable = True
        self.clock_went_back = False
        self.read_by: float | None = None
        self.unhealthy_since: dict[Id, float] = {}
        self.empty_since: dict[str, float] = {}

    def write(self) -> None:
        holders = tuple(
            Holder("p", "c", pod.resource, pod.shares, pod.per_gpu, pod.sizes, gpu=pod.gpu)
            for pod in self.pods
            if pod.recorded
        )
        registered: dict[tuple[str, str], list[int]] = {}
        for resource, name, number in listed(self.plan, healthy=True):
            registered.setdefault((resource, name), []).append(number)
        known = {key: IntSet.of(numbers) for key, numbers in registered.items()}
        if self.plan is None and self.file is not None:
            known = dict(self.file.registered)
        self.file = CheckpointState(holders, self.wall, known)
        self.read_by = self.now + READ_WITHIN

    def turn(self, burst: bool = False) -> None:  # noqa: FBT001, FBT002
        """What the keeper does; in a burst it does it with the next fact."""
        if burst:
            return
        self.node = advance(self.node, self.now, self.wall)
        assert advance(self.node, self.now, self.wall) == self.node
        found = plan(self.node, self.wall)
        facts = (self.node.sharing, self.node.gpus, self.node.checkpoint)
        assert (found is None) == (None in facts)
        if found is None:
            return
        self.check_ids(found)
        self.check_held(found)
        self.check_groups(found)
        self.check_pools(found)
        changed = self.plan is None or listed(self.plan) != listed(found)
        if self.plan is not None:
            self.shown.append(Shown(self.plan, self.now))
        self.plan = found
        if changed:
            self.write()

    def check_ids(self, found: Plan) -> None:
        """An id means one pool, and leaves after 30 s of Unhealthy, known to be free."""
        before, after = listed(self.plan), listed(found)
        pools = {(gpu, number): resource for resource, gpu, number in after}
        assert len(pools) == len(after)
        believed = self.believed()
        for one in before:
            now_in = pools.get(one[1:], one[0])
            # Only a lie moves an id at once: it says that the other pool's is held.
            assert now_in == one[0] or (self.lied and (now_in, *one[1:]) in believed)
        for one in before - after:
            assert self.now - self.unhealthy_since[one] >= DRAIN_FOR
            assert one not in believed
            assert self.node.checkpoint is not None
            assert not self.node.checkpoint.problem
        unhealthy = after - listed(found, healthy=True)
        self.unhealthy_since = {one: self.unhealthy_since.get(one, self.now) for one in unhealthy}

    def check_held(self, found: Plan) -> None:
        """What is held is listed by its pool, Healthy while its GPU is well."""
        every, healthy = listed(found), listed(found, healthy=True)
        pools = {(gpu, number): resource for resource, gpu, number in every}
        for one in self.believed():
            # Only a lie has one id in two pools; the pool that lists it keeps it.
            assert pools[one[1:]] == one[0] or any(pod.doubtful for pod in self.pods) or self.lied
        well = {gpu.uuid for gpu in self.node.gpus or () if not verdict(self.node, gpu).unhealthy}
        for pod in self.pods:
            if not pod.doubtful:
                assert pod.ids <= every
                # After a clock went back, an old file may look young until we read the next.
                assert self.clock_went_back or (
                    {i for i in pod.ids if (pod.gpu or i[1]) in well} <= healthy
                )

    @property
    def lied(self) -> bool:
        assert self.node.checkpoint is not None
        return any(one.pod == "liar" for one in self.node.checkpoint.holders)

    def believed(self) -> set[Id]:
        assert self.node.checkpoint is not None
        checkpoint = self.node.checkpoint
        found = held(checkpoint, self.node.grants)
        return {(name, gpu, one) for (name, gpu), many in found.items() for one in many}

    def check_groups(self, found: Plan) -> None:
        """As many shares as configured, beside what other pools hold; none Healthy when sick."""
        assert self.node.checkpoint is not None
        partitions = self.node.partitions()
        terms = held_shares(self.node.checkpoint, self.node.grants)
        groups: dict[tuple[str, str], GpuShares] = {
            (pool.resource, group.uuid): group for pool in found.pools for group in pool.groups
        }
        for key in {*partitions, *groups}:
            group = groups.get(key)
            holding = len(group.held) if group else 0
            room = 0
            if key in partitions and not partitions[key].size:
                left = max(Fraction(), 1 - elsewhere(key, partitions[key], terms))
                room = int(partitions[key].shares * left)
            assert (len(group.active) if group else 0) == max(room, holding)
        for pool in found.pools:
            message = list_message(pool)
            assert len(message.data) <= sum(listed_bytes(g.uuid, g.listed) for g in pool.lists)
            self.check_memory(pool, terms)
            for group in pool.lists:
                assert not group.active & group.draining
                assert not group.healthy & group.draining
                for number in group.listed:
                    assert parse_share_id(share_id(group.uuid, number)) == (group.uuid, number)
            for group in pool.groups:
                assert group.listed or group.lots or pool.memory
                well = group.gpu is not None and not verdict(self.node, group.gpu).unhealthy
                assert (group.availability is Availability.UNHEALTHY) == (not well)
                assert not (group.healthy and not well)
                assert group.parts > 0

    def check_memory(self, pool: Pool, terms: Mapping[Key, tuple[HeldShares, ...]]) -> None:
        """As many ids as are held and as all GPUs have room for beside that, in bytes."""
        own = pool.own
        rooms = 0
        for (resource, name), partition in self.node.partitions().items():
            if resource == pool.resource and partition.size and partition.shares:
                taken = sum(
                    (
                        batch.fraction(partition)
                        for (_, where), found in terms.items()
                        if where == name
                        for batch in found
                    ),
                    Fraction(),
                )
                rooms += max(0, int((1 - taken) * partition.usable) // partition.size)
        free = len(own.active) - len(own.held) if own else 0
        assert free == rooms
        if own:
            offered = len(own.healthy - own.held)
            assert offered == sum(group.offered for group in pool.groups) <= free

    def check_pools(self, found: Plan) -> None:
        """A pool goes 10 s after its last share, and only when the configuration has dropped it."""
        configured = {resource for resource, _ in self.node.wanted()}
        after = {pool.resource for pool in found.pools}
        assert configured <= after
        for pool in found.pools:
            assert pool.dropped == (pool.resource not in configured)
        for pool in self.plan.pools if self.plan else ():
            if pool.resource not in after:
                assert not any(group.listed for group in pool.lists)
                # One that had no share while it was configured has none to show the end of.
                assert not pool.dropped or self.now - self.empty_since[pool.resource] >= EMPTY_FOR
        self.empty_since = {
            pool.resource: self.empty_since.get(pool.resource, self.now)
            for pool in found.pools
            if not any(group.listed for group in pool.lists)
        }


def listed(plan: Plan | None, *, healthy: bool = False) -> set[Id]:
    return {
        (pool.resource, group.uuid, number)
        for pool in (plan.pools if plan else ())
        for group in pool.lists
        for number in (group.healthy if healthy else group.listed)
    }
