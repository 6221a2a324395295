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
from sgpud.core.planning.advance import withheld
from sgpud.core.planning.holdings import HeldShares, Key, elsewhere, held, held_shares, unconfirmed
from sgpud.core.planning.listing import room_beside
from sgpud.core.planning.node import Node
from sgpud.core.planning.notes import notes
from sgpud.core.sharing.rules import Advertise, Multiple, Partition, Placement, Sharing

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
    """Into how many shares this GPU is cut for this pool; 0 when it no longer is."""
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

    @property
    def listed(self) -> IntSet:
        """Every number in the list."""
        return self.active | self.draining

    @property
    def healthy(self) -> IntSet:
        """The numbers listed Healthy."""
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
        return max(0, len(self.held) - self.factor)


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

    @property
    def memory(self) -> bool:
        """Whether its shares stand for memory."""
        return any(group.size for group in self.groups)


@frozen
class Plan:
    """What is advertised, and how it is given out."""

    pools: tuple[Pool, ...] = ()
    placement: Placement = Placement.SPREAD
    chosen: InjectionChoice | None = None
    host: NodeHost = field(factory=NodeHost)
    notes: tuple[str, ...] = ()
    """What a person should know: entries that mean no GPU, GPUs past the message limit, …"""
    cap_factor: float = 0.0
    """A container's memory limit is what its shares stand for times this; 0: it gets none."""
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
    for key in sorted(node.listing.blocks, key=lambda key: _order(key, present)):
        resource, uuid = key
        group = _group(key, node, partitions.get(key), numbers.get(key, IntSet()), terms)
        group = evolve(group, gpu=present.get(uuid))
        groups.setdefault(resource, []).append(_judged(group, node, chosen))
    configured = {resource for resource, _ in partitions}
    pools = tuple(
        pooled(resource, groups[resource], sharing, dropped=resource not in configured)
        for resource in sorted(groups)
    )
    waiting = unconfirmed(node.grants, checkpoint, now) or awaits(pools)
    said = notes(node, sharing, present, partitions)
    return Plan(pools, sharing.placement, chosen, node.host, said, node.cap_factor, waiting=waiting)


def _group(
    key: Key,
    node: Node,
    partition: Partition | None,
    holding: IntSet,
    terms: Mapping[Key, tuple[HeldShares, ...]],
) -> GpuShares:
    """What is listed of one GPU, before anything is judged; without the GPU itself."""
    block, given = node.listing.blocks[key], terms.get(key, ())
    # Ids that drain from a pool of which nothing else is known are what its holders' are.
    size = block.size or (0 if partition else max((batch.size for batch in given), default=0))
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
    )


def awaits(pools: Iterable[Pool]) -> bool:
    """Whether a release would change what is listed."""
    return any(
        # The scheduler counts what a finished pod held as free at once: see it soon, where it
        # would bind by the sum of two GPUs' room.
        group.draining
        or group.surplus
        or (group.held and (group.size or group.availability is Availability.WITHHELD))
        for pool in pools
        for group in pool.groups
    )


def pooled(resource: str, groups: Sequence[GpuShares], sharing: Sharing, *, dropped: bool) -> Pool:
    """The pool of these groups, each with its own availability, as advertised."""
    prefix = variable_prefix(resource, sharing.resources)
    memory = any(group.size for group in groups)
    if memory and sharing.advertise is Advertise.LARGEST:
        groups = _largest(groups)
    multiple = Multiple.SAME if memory else sharing.multiple
    return Pool(resource, tuple(groups), prefix, dropped, sharing.numa, multiple)


def _largest(groups: Sequence[GpuShares]) -> list[GpuShares]:
    """The groups of memory shares, with the free ones of all but the roomiest GPU withheld."""
    # Held shares are among those that stay: no need to say which ones are free.
    rooms = [len(group.active) - len(group.held) for group in groups]
    able = [
        (-room, group.uuid)
        for room, group in zip(rooms, groups, strict=True)
        if room and group.availability is Availability.AVAILABLE
    ]
    best = min(able, default=(0, ""))
    return [
        evolve(
            group,
            availability=Availability.WITHHELD,
            reason=f"{best[1]} has more room",
            late=group.active,
        )
        if (-room, group.uuid) in able and group.uuid != best[1]
        else group
        for room, group in zip(rooms, groups, strict=True)
    ]


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
