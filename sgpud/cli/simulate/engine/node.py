"""One node of a simulation: sgpud's own core, and a kubelet as faithful as placement needs.

Whatever decides here is what decides in the daemon: advance, plan, pick (what
GetPreferredAllocation takes), choose (what Allocate gives). What is simulated is when each side
learns of the other. The plan is made again only where something looks at it and it would differ,
and only in those parts; the tests hold it equal to a plan made from scratch.

Free shares of one GPU are as good as each other, so that a node keeps counts: the shares that are
held are always the first ones of their GPU, as if names were swapped when a pod ends. What is
held, what sgpud still believes to be held and what there is are then each part of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from attrs import define, evolve, field

from sgpud.cli.simulate.engine.rooms import sizes
from sgpud.core.allocation.allocate import RefusedError, Request, choose
from sgpud.core.allocation.pending import PendingGrants
from sgpud.core.allocation.preference import pick
from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.holdings import CheckpointState, GivenShares, MemoryLot
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import GpuShares, Plan, Pool, awaits, plan, pooled
from sgpud.core.sharing.rules import Advertise, Sharing
from sgpud.core.sharing.share_id import memory_stem

GRANT_TURN = 0.1
"""Seconds from a grant until the plan counts it: the daemon brings a burst into one plan."""
WHILE_WAITING = 1.0
"""Seconds between looks for ended pods while memory shares are held, or something else waits for a
release."""
OTHERWISE = 60.0
"""Seconds between those looks else. An Allocate shows ended pods at once: the kubelet frees their
shares then, and writes its checkpoint."""

Given = tuple[tuple[int, int], ...]
"""What a pod has: (position of the GPU in the pool, how many of its shares)."""


class ShortError(SgpudError):
    """The kubelet fails a pod: it has fewer healthy free shares than the pod asks for."""

    def __init__(self, resource: str, asked: int, free: int) -> None:
        """`free`: what it has."""
        super().__init__(resource, asked, free)
        self.resource, self.asked, self.free = resource, asked, free

    def __str__(self) -> str:
        """What the pod's event says, in short."""
        return f"{self.asked} shares of {self.resource} asked for, {self.free} free on the node"


@define(eq=False)
class _ServedPool:
    """One pool as the kubelet sees it, and who holds what of it. Lists go by the pool's GPUs."""

    groups: list[GpuShares]
    """Before any is withheld for the sake of another."""
    pool: Pool
    held: list[int]
    """In truth, as the kubelet has it."""
    known: list[int]
    """As the checkpoint had it when sgpud read it last: never less."""
    healthy: list[int]
    sizes: list[int]
    """How many shares each GPU has."""
    spare: dict[str, int]
    """Bytes of each GPU that are less than a share."""
    _bound: dict[tuple[int, int], GpuShares] = field(factory=dict)
    """Each GPU with so many of its memory shares bound, as made before."""

    def free(self) -> list[int]:
        """What the kubelet chooses from: healthy and not held."""
        return [well - held for well, held in zip(self.healthy, self.held, strict=True)]

    def bound(self, known: Sequence[int]) -> list[GpuShares]:
        """The GPUs of memory shares, with so many bound to each."""
        found = []
        for position, (count, span) in enumerate(zip(known, self.spans(known), strict=True)):
            group = self._bound.get((position, count))
            if group is None:
                group = self.groups[position]
                stem = memory_stem(self.pool.resource)
                lots = (MemoryLot(stem, span, group.size),) if count else ()
                left = (self.sizes[position] - count) * group.size + self.spare[group.uuid]
                group = self._bound[position, count] = evolve(group, lots=lots, left=left)
            found.append(group)
        return found

    def keep(self) -> None:
        """Remember the GPUs as the plan has them now, that they need not be made again."""
        for position, (count, group) in enumerate(zip(self.known, self.pool.groups, strict=True)):
            self._bound[position, count] = group

    def spans(self, counts: Sequence[int]) -> list[IntSet]:
        """The memory shares that are bound to each GPU: the first of as many as it has."""
        starts = accumulate(self.sizes, initial=0)
        return [
            IntSet.span(start, start + count) for start, count in zip(starts, counts, strict=False)
        ]


@define
class SimulatedNode:
    """A node as time passes: pods are admitted and end, the plan follows. Times never go back."""

    _sharing: Sharing
    _plan: Plan
    _served: dict[str, _ServedPool]
    _follows: bool
    """Whether what is listed follows from who holds what. It does where free shares are withheld
    for the sake of another GPU's; otherwise the same ids stay Healthy whoever holds them, and the
    plan serves as it is."""
    _turn: float | None = None
    """When the plan takes in what was granted; None where nothing was."""
    _stale: bool = False
    """Whether the plan has to be made again before anybody looks at it."""
    refresh: float | None = None
    """When the next look for ended pods is due; None where none would find anything new."""
    news: bool = False
    """Whether what is listed has changed, or is about to, since the last report."""

    @classmethod
    def of(cls, sharing: Sharing, gpus: Sequence[Gpu]) -> SimulatedNode:
        """A node of which all is known, and on which nothing runs."""
        # Neither facts nor configuration change in a simulation: the listing takes one step.
        node = advance(Node(sharing, tuple(gpus), checkpoint=CheckpointState()), 0.0, 0.0)
        all_listed = plan(evolve(node, sharing=evolve(sharing, advertise=Advertise.ALL)), 0.0)
        made = plan(node, 0.0)
        pools = zip(all_listed.pools, made.pools, strict=True) if all_listed and made else ()
        served = {after.resource: _served(before, after) for before, after in pools}
        follows = any(each.pool.memory for each in served.values())
        return cls(sharing, made or Plan(), served, follows)

    @property
    def plan(self) -> Plan:
        """The plan as it was made last."""
        return self._plan

    def room(self, resource: str) -> list[int]:
        """How many shares of each GPU nobody holds in truth, listed Healthy or not."""
        served = self._served.get(resource)
        if served is None:
            return []
        return [shares - held for shares, held in zip(served.sizes, served.held, strict=True)]

    def report(self, now: float) -> dict[str, int]:
        """The node's status: how many shares of each resource are allocatable (healthy)."""
        self._current(now)
        self.news = self._turn is not None
        return {resource: sum(served.healthy) for resource, served in self._served.items()}

    def admit(self, resource: str, shares: int, now: float) -> Given:
        """Start a pod that the scheduler bound here. ShortError, RefusedError: it fails."""
        self._current(now)
        served = self._served[resource]
        if served.pool.memory:
            return self._admit_memory(served, shares, now)
        free = served.free()
        if sum(free) < shares:
            raise ShortError(resource, shares, sum(free))
        given = self._choose(served, free, shares)
        numbers = {
            position: IntSet.span(served.held[position], served.held[position] + count)
            for position, count in given
        }
        request = Request(("share",) * shares, numbers)
        choose(self._plan, served.pool, request, PendingGrants(), now)
        for position, count in given:
            served.held[position] += count
        return given

    def _admit_memory(self, served: _ServedPool, shares: int, now: float) -> Given:
        """Start a pod with memory shares.

        The kubelet chooses any of the free ids. Those of pods whose end sgpud has not seen are
        among them, here as large a part as of all; whoever has held one of them has ended.
        """
        pool = served.pool
        ended = [known - held for known, held in zip(served.known, served.held, strict=True)]
        unheld = sum(served.healthy) - sum(served.held)
        if unheld < shares:
            raise ShortError(pool.resource, shares, unheld)
        groups, spans = served.bound(served.known), served.spans(served.known)
        taken = [
            IntSet.span(span.ranges[-1][1] - part * shares // unheld, span.ranges[-1][1])
            if span
            else span
            for span, part in zip(spans, ended, strict=True)
        ]
        rest = shares - sum(map(len, taken))
        numbers = IntSet.union((*taken, IntSet.union(spans).unused(rest)))
        request = Request(("share",) * shares, {len(groups): numbers})
        stem = memory_stem(pool.resource)
        over = tuple(
            GivenShares(float("-inf"), group.uuid, stem, span - span.lowest(len(span) - part))
            for group, span, part in zip(groups, spans, ended, strict=True)
            if part
        )
        bound = evolve(pool, groups=tuple(groups), containers=over)
        try:
            found = choose(self._plan, bound, request, PendingGrants(), now)
        except RefusedError:
            # The daemon asks at once who holds what.
            self.refresh = now + GRANT_TURN if any(ended) else self.refresh
            raise
        uuid = found.taken[0][0].uuid
        position = next(at for at, group in enumerate(groups) if group.uuid == uuid)
        # Whoever held what was asked for has ended.
        served.known = [
            known - (part if asked else 0)
            for known, part, asked in zip(served.known, ended, taken, strict=True)
        ]
        served.known[position] += shares
        served.held[position] += shares
        self._turn = now + GRANT_TURN if self._turn is None else self._turn
        self.refresh, self.news = None, True
        return ((position, shares),)

    def release(self, resource: str, given: Given, now: float) -> None:
        """End a pod. The kubelet has its shares back at once, sgpud sees that later."""
        for position, count in given:
            self._served[resource].held[position] -= count
        self._expect(now)

    def look(self) -> None:
        """Have sgpud look for ended pods."""
        self.refresh = None
        if self._ended():
            self._update()

    def _choose(self, served: _ServedPool, free: Sequence[int], shares: int) -> Given:
        if sum(free) == shares:
            # The kubelet asks for a preference only where there is a choice.
            return tuple((position, count) for position, count in enumerate(free) if count)
        taken = pick(self._plan, served.pool, free, shares)
        return tuple((position, count) for position, count in enumerate(taken) if count)

    def _update(self) -> None:
        for served in self._served.values():
            served.known = list(served.held)
        self._stale = self.news = True

    def _ended(self) -> bool:
        """Whether pods have ended that sgpud still counts."""
        return any(served.known != served.held for served in self._served.values())

    def _expect(self, now: float) -> None:
        """Have a look for ended pods when the daemon would."""
        if self._follows and self._ended():
            self._current(now)
            every = WHILE_WAITING if self._plan.waiting else OTHERWISE
            due = (now // every + 1) * every
            self.refresh = due if self.refresh is None else min(self.refresh, due)

    def _current(self, now: float) -> None:
        """Bring the plan up to date, with what was granted long enough ago."""
        if self._turn is not None and self._turn <= now:
            # An Allocate has the kubelet free what ended, and write its checkpoint.
            self._turn = None
            self._update()
        if self._stale:
            self._stale = False
            self._replan()

    def _replan(self) -> None:
        """Make the plan again, in what a plan made from scratch would differ."""
        for served in self._served.values():
            if not served.pool.memory or served.pool.own is None:
                continue
            groups = served.bound(served.known)
            own = evolve(served.pool.own, held=IntSet.union(served.spans(served.known)))
            resource = served.pool.resource
            served.pool = pooled(resource, groups, self._sharing, own, dropped=False)
            served.keep()
            served.healthy = _healthy(served.pool)
        pools = tuple(served.pool for served in self._served.values())
        self._plan = evolve(self._plan, pools=pools, waiting=awaits(pools))


def _served(all_listed: Pool, pool: Pool) -> _ServedPool:
    none = [0] * len(pool.groups)
    spare = {group.uuid: group.left % group.size if group.size else 0 for group in pool.groups}
    groups = list(all_listed.groups)
    return _ServedPool(groups, pool, none, list(none), _healthy(pool), sizes(pool), spare)


def _healthy(pool: Pool) -> list[int]:
    """How many shares are Healthy, by GPU: of free memory shares those that it adds."""
    if pool.memory:
        return [group.given + group.offered for group in pool.groups]
    return [len(group.healthy) for group in pool.groups]
