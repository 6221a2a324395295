"""Publishes the plan to the workers, and collects the grants that they record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

from attrs import evolve, field, frozen

from sgpud.bridge import RingBuffer, Subscription, Watchable
from sgpud.core.allocation.allocate import IdIndex, index
from sgpud.core.allocation.decisions import KEPT, Decision, GpuSnapshot, gpu_snapshots
from sgpud.core.allocation.pending import PendingGrants
from sgpud.core.planning.holdings import Grant
from sgpud.core.planning.plan import Plan, Pool
from sgpud.kubelet.deviceplugin.messages import ListMessage, list_message


@frozen(eq=False)
class ServedPool:
    """One pool with what is made of it once: its list message and its dictionary of ids."""

    pool: Pool
    message: ListMessage
    index: IdIndex
    gpu_snapshots: tuple[GpuSnapshot, ...] = ()
    """What decisions keep of it."""
    resends: int = 0
    """Raised to send the same list once more, so that the kubelet writes its checkpoint."""
    pending: PendingGrants = field(factory=PendingGrants)
    """What was granted since: read and written under the lock of what is published."""


@frozen(eq=False)
class Snapshot:
    """What every worker answers from."""

    plan: Plan
    pools: Mapping[str, ServedPool] = field(factory=dict)


class SnapshotPublisher:
    """Holds the latest snapshot. The reactor puts plans on it, workers answer from it."""

    def __init__(self, granted: Callable[[], object] = lambda: None) -> None:
        """Nothing is served before the first plan.

        `granted` is called in a worker's thread when there are grants to collect.
        """
        self.published: Watchable[Snapshot | None, Grant] = Watchable(None, granted)
        self.decisions: RingBuffer[Decision] = RingBuffer(KEPT)
        """The last answers, written by the workers."""

    @property
    def snapshot(self) -> Snapshot | None:
        """The latest snapshot; None before the first plan."""
        return self.published.value

    def subscribe(self) -> Subscription[Snapshot | None]:
        """A follower of the snapshots."""
        return self.published.subscribe()

    def grants(self) -> list[Grant]:
        """The grants since the last call."""
        return self.published.collect()

    def put(self, plan: Plan) -> bool:
        """Serve this plan from now on; False when a grant came that it does not list."""
        old = self.published.value
        pools = {}
        for pool in plan.pools:
            before = old.pools.get(pool.resource) if old else None
            pools[pool.resource] = ServedPool(
                pool,
                list_message(pool, before.message if before else None),
                index(pool, before.index if before else None),
                gpu_snapshots(pool, before.gpu_snapshots if before else ()),
                before.resends if before else 0,
            )
        return self.published.publish(Snapshot(plan, pools), lambda grant: _counts(pools, grant))

    def resend(self) -> None:
        """Have every pool's list sent once more."""
        old = self.published.value
        if old is not None:
            pools = {
                resource: evolve(served, resends=served.resends + 1)
                for resource, served in old.pools.items()
            }
            # The same ids: whatever was granted meanwhile is listed.
            self.published.publish(Snapshot(old.plan, pools), lambda _: True)


def _counts(pools: Mapping[str, ServedPool], grant: Grant) -> bool:
    """Whether a grant's shares are in the new lists: it is counted beside them then."""
    served = pools.get(grant.resource)
    if served is None:
        return False
    listed = {group.uuid: group.listed for group in served.pool.lists}
    listed_all = not any(
        chain.from_iterable(
            numbers - listed[uuid] if uuid in listed else numbers
            for uuid, numbers in grant.shares.items()
        )
    )
    if listed_all:
        served.pending.note(grant, served.pool)
    return listed_all
