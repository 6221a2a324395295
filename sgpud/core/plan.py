"""The Plan: what is advertised now. plan() makes it from the frozen Node, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from fractions import Fraction

from attrs import evolve, field, frozen

from sgpud.core.delivery import Chosen, Host, choose, lacks, variable_prefix
from sgpud.core.gpu import Gpu
from sgpud.core.healths import verdict
from sgpud.core.holding import Key, Lot, elsewhere, held, lots, unconfirmed
from sgpud.core.node import Node
from sgpud.core.notes import notes
from sgpud.core.numbers import Numbers
from sgpud.core.sharing import Advertise, Cut, Multiple, Placement, Sharing

UNMEASURED = 21
"""Stands after every step of measured free memory."""


class Standing(Enum):
    """How a GPU's shares are listed."""

    WELL = "well"
    """Free and held shares Healthy."""
    WITHHELD = "withheld"
    """Free shares Unhealthy for a reason that is not sickness; held shares Healthy."""
    SICK = "sick"
    """Every share Unhealthy, and nothing is granted."""


@frozen
class Group:
    """What one pool lists of one GPU."""

    uuid: str
    gpu: Gpu | None
    """None when the GPU is gone and only its held or draining shares are left."""
    factor: int
    """Into how many shares this GPU is cut for this pool; 0 when it no longer is."""
    active: Numbers
    """Shares that stay, the held ones included."""
    held: Numbers
    draining: Numbers
    standing: Standing = Standing.WELL
    reason: str = ""
    """Why it is withheld or sick."""
    elsewhere: Fraction = Fraction()
    """The fraction of this GPU that is held on other terms: of other pools, of another size."""
    parts: int = 1
    """One share of this pool is one of so many parts of the GPU: `factor`, or what it was last."""
    size: int = 0
    """Bytes that a share given now stands for; 0: a share is a place on the GPU."""
    measured: int | None = None
    """Measured free memory in steps of 5 % of the GPU's; None: not measured lately."""

    @property
    def listed(self) -> Numbers:
        """Every number in the list."""
        return self.active | self.draining

    @property
    def healthy(self) -> Numbers:
        """The numbers listed Healthy."""
        if self.standing is Standing.SICK:
            return Numbers()
        return self.active if self.standing is Standing.WELL else self.held

    @property
    def free(self) -> Numbers:
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
    groups: tuple[Group, ...] = ()
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
    chosen: Chosen | None = None
    host: Host = field(factory=Host)
    notes: tuple[str, ...] = ()
    """What a person should know: entries that mean no GPU, GPUs past the message limit, …"""
    waiting: bool = False
    """Whether something waits for a release, so that holders are worth a look every few seconds."""

    def pool(self, resource: str) -> Pool | None:
        """The pool of a resource, or None."""
        return next((pool for pool in self.pools if pool.resource == resource), None)


def plan(node: Node, now: float) -> Plan | None:
    """The plan for a node as it is; None while a fact that it needs is Unknown.

    `now`, in seconds since the epoch, is compared with the age of grants only.
    """
    sharing, gpus, books = node.sharing, node.gpus, node.books
    if sharing is None or gpus is None or books is None:
        return None
    present = {gpu.uuid: gpu for gpu in gpus}
    shared = [gpu for gpu in gpus if sharing.allows(gpu)]
    several = len(sharing.resources) > 1
    chosen = choose(sharing.delivery, node.host, shared, several=several)
    # What drains of a GPU that is no longer shared is still given out, where that can be done.
    others = lacks(chosen.method, node.host, [gpu for gpu in gpus if gpu not in shared])
    chosen = evolve(chosen, unavailable={**others, **chosen.unavailable})
    cuts = node.cuts()
    numbers, terms = held(books, node.grants), lots(books, node.grants)
    groups: dict[str, list[Group]] = {resource: [] for resource, _ in cuts}
    for resource in node.listing.empty_since:
        groups.setdefault(resource, [])
    for key in sorted(node.listing.blocks, key=lambda key: _order(key, present)):
        resource, uuid = key
        group = _group(key, node, cuts.get(key), numbers.get(key, Numbers()), terms)
        group = evolve(group, gpu=present.get(uuid))
        groups.setdefault(resource, []).append(_guarded(_judged(group, node, chosen), node))
    configured = {resource for resource, _ in cuts}
    pools = tuple(
        pooled(resource, groups[resource], sharing, dropped=resource not in configured)
        for resource in sorted(groups)
    )
    waiting = unconfirmed(node.grants, books, now) or awaits(pools)
    said = notes(node, sharing, present, cuts)
    return Plan(pools, sharing.placement, chosen, node.host, said, waiting=waiting)


def _group(
    key: Key,
    node: Node,
    cut: Cut | None,
    holding: Numbers,
    terms: Mapping[Key, tuple[Lot, ...]],
) -> Group:
    """What is listed of one GPU, before anything is judged; without the GPU itself."""
    block, given = node.listing.blocks[key], terms.get(key, ())
    # Ids that drain from a pool of which nothing else is known are what its holders' are.
    size = block.size or (0 if cut else max((lot.size for lot in given), default=0))
    return Group(
        key[1],
        None,
        cut.shares if cut else 0,
        block.active,
        holding & block.active,
        block.leaving,
        elsewhere=elsewhere(key, cut or Cut(0, size), terms),
        parts=(cut.shares if cut else 0)
        or max((lot.per_gpu for lot in given), default=0)
        or len(block.listed),
        size=size,
        measured=node.free_steps.get(key[1]),
    )


def awaits(pools: Iterable[Pool]) -> bool:
    """Whether a release would change what is listed."""
    return any(
        # The scheduler counts what a finished pod held as free at once: see it soon, where it
        # would bind by the sum of two GPUs' room.
        group.draining or group.surplus or (group.size and group.held)
        for pool in pools
        for group in pool.groups
    )


def pooled(resource: str, groups: Sequence[Group], sharing: Sharing, *, dropped: bool) -> Pool:
    """The pool of these groups, each well, sick or withheld by itself, as it is advertised."""
    prefix = variable_prefix(resource, sharing.resources)
    memory = any(group.size for group in groups)
    if memory and sharing.advertise is Advertise.LARGEST:
        groups = _largest(groups)
    multiple = Multiple.SAME if memory else sharing.multiple
    return Pool(resource, tuple(groups), prefix, dropped, sharing.numa, multiple)


def _largest(groups: Sequence[Group]) -> list[Group]:
    """The groups of memory shares, with the free ones of all but the roomiest GPU withheld."""
    # Held shares are among those that stay: no need to say which ones are free.
    rooms = [len(group.active) - len(group.held) for group in groups]
    able = [
        (-room, group.uuid)
        for room, group in zip(rooms, groups, strict=True)
        if room and group.standing is Standing.WELL
    ]
    best = min(able, default=(0, ""))
    return [
        evolve(group, standing=Standing.WITHHELD, reason=f"{best[1]} has more room")
        if (-room, group.uuid) in able and group.uuid != best[1]
        else group
        for room, group in zip(rooms, groups, strict=True)
    ]


def _order(key: Key, present: Mapping[str, Gpu]) -> tuple[object, ...]:
    gpu = present.get(key[1])
    return (key[0], gpu is None, gpu.order if gpu else (0, 0, 0, key[1]))


def _judged(group: Group, node: Node, chosen: Chosen) -> Group:
    """The group with its standing: sick, withheld, or well."""
    if group.gpu is None:
        return evolve(group, standing=Standing.SICK, reason="the GPU is no longer on this node")
    found = verdict(node, group.gpu)
    if found.sick:
        return evolve(group, standing=Standing.SICK, reason=found.sick)
    reason = node.probe_problem or found.withheld or chosen.unavailable.get(group.uuid, "")
    if reason:
        return evolve(group, standing=Standing.WITHHELD, reason=reason)
    return group


def _guarded(group: Group, node: Node) -> Group:
    """The group, withheld where its GPU is full."""
    watch = node.watches.get(group.uuid)
    if watch and watch.full and group.standing is Standing.WELL:
        return evolve(group, standing=Standing.WITHHELD, reason=watch.reason)
    return group
