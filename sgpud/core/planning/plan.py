"""The Plan: what is advertised now. plan() makes it from the frozen Node, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from fractions import Fraction

from attrs import evolve, field, frozen

from sgpud.core.allocation.injection import (
    InjectionChoice,
    NodeHost,
    choose,
    lacks,
    variable_prefix,
)
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.health.node_health import verdict
from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import CapTerms
from sgpud.core.planning.advance import withheld
from sgpud.core.planning.holdings import (
    GivenShares,
    HeldShares,
    Key,
    MemoryLot,
    container_shares,
    elsewhere,
    fresh_shares,
    held,
    held_shares,
    memory_lots,
    unconfirmed,
)
from sgpud.core.planning.listing import ListedShares, memory_left, room_beside
from sgpud.core.planning.node import Node
from sgpud.core.planning.notes import notes
from sgpud.core.sharing.rules import Advertise, Multiple, Partition, Placement, Sharing
from sgpud.core.sharing.share_id import memory_stem

UNMEASURED = 21
"""Stands after every step of measured free memory."""


class Availability(Enum):
    """How a GPU's shares are listed."""

    AVAILABLE = "available"
    """Free and held shares Healthy."""
    WITHHELD = "withheld"
    """Free shares Unhealthy for a reason that is not sickness; held shares Healthy."""
    UNHEALTHY = "unhealthy"
    """Every share Unhealthy, and nothing is granted."""


@frozen
class GpuShares:
    """What one pool lists of one GPU."""

    uuid: str
    gpu: Gpu | None
    """None when the GPU is gone and only its held or draining shares are left."""
    factor: int
    """Into how many shares this pool divides the GPU; 0 if it is not shared any more."""
    active: IntSet
    """Shares that stay, the held ones included."""
    held: IntSet
    draining: IntSet
    availability: Availability = Availability.AVAILABLE
    reason: str = ""
    """Why it is withheld or unhealthy."""
    elsewhere: Fraction = Fraction()
    """The fraction of this GPU that is held on other terms: of other pools, of another size."""
    parts: int = 1
    """One share of this pool is one of so many parts of the GPU: `factor`, or what it was last."""
    size: int = 0
    """Bytes that a share given now stands for; 0: a share is a place on the GPU."""
    measured: int | None = None
    """Measured free memory in steps of 5 % of the GPU's; None: not measured lately."""
    room: int = 0
    """Shares that it has beside the held ones; negative: so many of these are more than it has."""
    late: IntSet = field(factory=IntSet)
    """Shares that are given although they are no longer Healthy: the kubelet may have chosen them
    from the list before."""
    lots: tuple[MemoryLot, ...] = ()
    """The memory shares that are bound to this GPU."""
    left: int = 0
    """Bytes of it that no container has declared, for memory shares; negative: too many were."""
    offered: int = 0
    """So many free memory shares are Healthy since this GPU has room for them."""
    shown: IntSet | None = None
    """Of the ids of memory shares, which name no GPU, those that are listed Healthy."""

    @property
    def listed(self) -> IntSet:
        """Every number in the list."""
        return self.active | self.draining

    @property
    def healthy(self) -> IntSet:
        """The numbers listed Healthy."""
        if self.shown is not None:
            return self.shown
        if self.availability is Availability.UNHEALTHY:
            return IntSet()
        return self.active if self.availability is Availability.AVAILABLE else self.held

    @property
    def free(self) -> IntSet:
        """Shares that stay and that nobody holds."""
        return self.active - self.held

    @property
    def surplus(self) -> int:
        """Held shares beyond what is configured."""
        if self.size:
            return max(0, -(self.left // self.size))
        return max(0, len(self.held) - self.factor)

    @property
    def given(self) -> int:
        """How many shares containers hold of this GPU."""
        bound = sum(len(lot.numbers) for lot in self.lots if lot.stem != self.uuid)
        return bound + len(self.held)

    @property
    def unheld(self) -> int:
        """How many shares there are of this GPU beside those."""
        # Held shares are among those that stay.
        return max(0, self.left // self.size) if self.size else len(self.active) - len(self.held)


@frozen
class Pool:
    """One extended resource of this node."""

    resource: str
    groups: tuple[GpuShares, ...] = ()
    prefix: str = "SGPUD_"
    """What the names of the container's variables start with."""
    dropped: bool = False
    """No longer configured: it goes once its last share has gone."""
    numa: bool = False
    multiple: Multiple = Multiple.DISTINCT
    """What several shares in one container mean; always the same GPU for memory shares."""
    own: GpuShares | None = None
    """The ids of memory shares, which name no GPU, listed as if they were of one."""
    containers: tuple[GivenShares, ...] = ()
    """The memory shares of each container that the checkpoint names."""
    fresh: tuple[GivenShares, ...] = ()
    """The memory shares that were given lately."""
    size: int = 0
    """Bytes of one share; 0: shares are places."""
    asked_before_start: bool = False
    """Whether the kubelet calls PreStartContainer before it starts a container with its shares."""

    @property
    def memory(self) -> bool:
        """Whether its shares stand for memory."""
        return bool(self.size)

    @property
    def largest(self) -> int:
        """The shares of the GPU that is cut into the most; with `same`, more are whole GPUs."""
        return max((group.factor for group in self.groups), default=0)

    @property
    def lists(self) -> tuple[GpuShares, ...]:
        """All ids that are listed, by their stem."""
        return self.groups if self.own is None else (*self.groups, self.own)


@frozen
class Plan:
    """What is advertised, and how it is given out."""

    pools: tuple[Pool, ...] = ()
    placement: Placement = Placement.SPREAD
    chosen: InjectionChoice | None = None
    host: NodeHost = field(factory=NodeHost)
    notes: tuple[str, ...] = ()
    """What a person should know: entries that mean no GPU, GPUs past the message limit, …"""
    cap_terms: CapTerms | None = None
    """How a container's memory limit follows from what its shares stand for; None: it has none."""
    waiting: bool = False
    """Whether something waits for a release, so that holders are worth a look every few seconds."""

    def pool(self, resource: str) -> Pool | None:
        """The pool of a resource, or None."""
        return next((pool for pool in self.pools if pool.resource == resource), None)


def plan(node: Node, now: float) -> Plan | None:
    """The plan for a node as it is; None while a fact that it needs is Unknown.

    `now`, in seconds since the epoch, is compared with the age of grants only.
    """
    sharing, gpus, checkpoint = node.sharing, node.gpus, node.checkpoint
    if sharing is None or gpus is None or checkpoint is None:
        return None
    present = {gpu.uuid: sharing.sized(gpu) for gpu in gpus}
    shared = [gpu for gpu in gpus if sharing.allows(gpu)]
    several = len(sharing.resources) > 1
    chosen = choose(sharing.injection, node.host, shared, several=several)
    # Draining shares of a GPU that is no longer shared are still granted, if possible.
    others = lacks(chosen.method, node.host, [gpu for gpu in gpus if gpu not in shared])
    chosen = evolve(chosen, unavailable={**others, **chosen.unavailable})
    partitions = node.partitions()
    numbers, terms = held(checkpoint, node.grants), held_shares(checkpoint, node.grants)
    groups: dict[str, list[GpuShares]] = {resource: [] for resource, _ in partitions}
    for resource in node.listing.empty_since:
        groups.setdefault(resource, [])
    lots = memory_lots(checkpoint, node.grants)
    fresh = fresh_shares(checkpoint, node.grants, now)
    containers = container_shares(checkpoint, node.grants)
    own: dict[str, GpuShares] = {}
    memory = (key for key, partition in partitions.items() if partition.size and partition.shares)
    known = {*node.listing.blocks, *memory, *lots}
    for key in sorted(known, key=lambda key: _order(key, present)):
        resource, uuid = key
        group = _group(key, node, partitions.get(key), numbers.get(key, IntSet()), terms)
        group = evolve(group, gpu=present.get(uuid), lots=lots.get(key, ()))
        if uuid == memory_stem(resource) and key in node.listing.blocks:
            own[resource] = group
            groups.setdefault(resource, [])
        else:
            groups.setdefault(resource, []).append(_judged(group, node, chosen))
    configured = {resource for resource, _ in partitions}
    pools = tuple(
        evolve(
            pooled(
                resource,
                groups[resource],
                sharing,
                own.get(resource),
                dropped=resource not in configured,
            ),
            containers=containers.get(resource, ()),
            fresh=fresh.get(resource, ()),
            asked_before_start=node.asked_before_start
            and any(group.size for group in groups[resource]),
        )
        for resource in sorted(groups)
    )
    waiting = unconfirmed(node.grants, checkpoint, now) or awaits(pools)
    said = notes(node, sharing, present, partitions)
    return Plan(pools, sharing.placement, chosen, node.host, said, node.cap_terms, waiting=waiting)


def _group(
    key: Key,
    node: Node,
    partition: Partition | None,
    holding: IntSet,
    terms: Mapping[Key, tuple[HeldShares, ...]],
) -> GpuShares:
    """What is listed of one GPU, before anything is judged; without the GPU itself."""
    block, given = node.listing.blocks.get(key, ListedShares()), terms.get(key, ())
    # What is held of a GPU that its pool no longer has is of the size that it was given with.
    size = partition.size if partition else max((batch.size for batch in given), default=0)
    left = memory_left(key[1], partition, terms) if partition and partition.size else 0
    return GpuShares(
        key[1],
        None,
        partition.shares if partition else 0,
        block.active,
        holding & block.active,
        block.leaving,
        elsewhere=elsewhere(key, partition or Partition(0, size), terms),
        parts=(partition.shares if partition else 0)
        or max((batch.per_gpu for batch in given), default=0)
        or len(block.listed),
        size=size,
        measured=node.free_steps.get(key[1]),
        room=room_beside(key, partition, holding & block.active, terms),
        late=node.late.get(key, IntSet()),
        left=left,
    )


def awaits(pools: Iterable[Pool]) -> bool:
    """Whether a release would change what is listed."""
    return any(
        # The scheduler counts what a finished pod held as free at once: see it soon, where it
        # would bind by the sum of two GPUs' room.
        group.draining
        or group.surplus
        or (group.given and (group.size or group.availability is Availability.WITHHELD))
        for pool in pools
        for group in pool.lists
    )


def pooled(
    resource: str,
    groups: Sequence[GpuShares],
    sharing: Sharing,
    own: GpuShares | None = None,
    *,
    dropped: bool,
) -> Pool:
    """The pool of these groups, each with its own availability, as advertised.

    `own`: the ids of its memory shares.
    """
    prefix = variable_prefix(resource, sharing.resources)
    size = max((group.size for group in groups if group.factor), default=0)
    if size:
        groups = _offered(groups, sharing.advertise)
    if own is not None:
        own = evolve(own, shown=_shown(own, groups))
    multiple = Multiple.SAME if size else sharing.multiple
    return Pool(
        resource,
        tuple(groups),
        prefix,
        dropped,
        sharing.numa and not size,
        multiple,
        own,
        size=size,
    )


def _offered(groups: Sequence[GpuShares], advertise: Advertise) -> list[GpuShares]:
    """The GPUs of memory shares, with what each adds to the free ones that are Healthy.

    That is the room of the roomiest, or of every one. It binds nobody to that GPU.
    """
    able = [group for group in groups if group.availability is Availability.AVAILABLE]
    if advertise is Advertise.LARGEST:
        able = sorted(able, key=lambda group: (-group.unheld, group.uuid))[:1]
    names = {group.uuid for group in able}
    counts = [group.unheld if group.uuid in names else 0 for group in groups]
    return [
        group if group.offered == count else evolve(group, offered=count)
        for group, count in zip(groups, counts, strict=True)
    ]


def _shown(own: GpuShares, groups: Sequence[GpuShares]) -> IntSet:
    """The ids of memory shares that are Healthy: free ones, and held ones but of a sick GPU."""
    count = sum(group.offered for group in groups)
    sick = IntSet.union(
        lot.numbers
        for group in groups
        if group.availability is Availability.UNHEALTHY
        for lot in group.lots
        if lot.stem == own.uuid
    )
    return (own.held - sick) | own.free.lowest(count)


def _order(key: Key, present: Mapping[str, Gpu]) -> tuple[object, ...]:
    gpu = present.get(key[1])
    return (key[0], gpu is None, gpu.order if gpu else (0, 0, 0, key[1]))


def _judged(group: GpuShares, node: Node, chosen: InjectionChoice) -> GpuShares:
    """The group as it is listed: available, withheld or unhealthy."""
    if group.gpu is None:
        return evolve(
            group, availability=Availability.UNHEALTHY, reason="the GPU is no longer on this node"
        )
    found = verdict(node, group.gpu)
    if found.unhealthy:
        return evolve(group, availability=Availability.UNHEALTHY, reason=found.unhealthy)
    reason = withheld(node, group.gpu) or chosen.unavailable.get(group.uuid, "")
    if reason:
        return evolve(group, availability=Availability.WITHHELD, reason=reason)
    return group
