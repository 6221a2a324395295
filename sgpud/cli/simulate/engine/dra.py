"""Nodes and scheduler of a simulation where the nodes are drivers of DRA.

The scheduler knows every GPU: it allocates first fit over the devices of a node, in the order in
which the node has published them. So no pod fails on a node. What is simulated beside it is when a
node learns of claims, and when it publishes a new order.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush

from attrs import define, evolve, field

from sgpud.cli.simulate.engine.node import Given
from sgpud.cli.simulate.engine.scheduler import PodAsk, Scheduler
from sgpud.cli.simulate.engine.values import SimulatedDra
from sgpud.core.dra.allocator import DeviceRequest, allocate_first_fit
from sgpud.core.dra.claims import MEMORY, SHARES
from sgpud.core.dra.slices import Device, devices, in_order, room
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.planning.advance import advance
from sgpud.core.planning.holdings import CheckpointState
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan, Pool
from sgpud.core.sharing.rules import Multiple, Sharing

PREPARED_AFTER = 0.3
"""Seconds from a pod's binding until its claim is prepared (seen with Kubernetes 1.36)."""
UNPREPARED_AFTER = 2.5
"""Seconds from a pod's end until its claim is unprepared (likewise)."""

Sums = dict[str, dict[str, int]]
"""What is consumed, by GPU UUID and capacity."""


@define
class DraNode:
    """A node that publishes its GPUs, and orders them by what it has prepared. Never goes back."""

    plan: Plan
    """What a device plugin would list: into how many shares each GPU is cut."""
    _facts: Node
    _dra: SimulatedDra
    _devices: tuple[Device, ...]
    """In the order published last."""
    _used: Sums = field(factory=dict)
    """What the scheduler has allocated."""
    _prepared: Sums = field(factory=dict)
    """The part of it that this node knows of."""
    _coming: list[tuple[float, str, tuple[tuple[str, int], ...]]] = field(factory=list)
    """A heap of what it is going to know: (when, UUID, change)."""
    _allocated: deque[Given] = field(factory=deque)
    """What the scheduler has allocated to the containers that start next."""
    _written_at: float = -math.inf
    refresh: float | None = None
    """When it may publish another order next; None where nothing would change it."""
    news: bool = False
    """The number in the node's status does not change."""

    @classmethod
    def of(cls, sharing: Sharing, gpus: Sequence[Gpu], plan: Plan, dra: SimulatedDra) -> DraNode:
        """A node of which all is known, and on which nothing runs."""
        facts = advance(Node(sharing, tuple(gpus), checkpoint=CheckpointState()), 0.0, 0.0)
        return cls(plan, facts, dra, devices(facts, dra.settings))

    def room(self, resource: str) -> list[int]:
        """How many shares of each GPU are free."""
        pool = self.plan.pool(resource)
        if pool is None:
            return []
        by_uuid = {device.uuid: device for device in self._devices}
        free = [room(by_uuid[group.uuid], self._used) for group in pool.groups]
        size, default = pool.size, self._dra.settings.default_memory
        if size:
            return [memory // size for memory, _ in free]
        return [min(places, memory // default) if default else places for memory, places in free]

    def report(self, _now: float) -> dict[str, int]:
        """How many shares there are of each resource."""
        return {
            pool.resource: sum(group.given + group.unheld for group in pool.groups)
            for pool in self.plan.pools
        }

    def allocate(self, ask: PodAsk) -> bool:
        """Allocate devices to a pod as the scheduler does; False where they do not fit."""
        found: list[tuple[str, Given]] = []
        for resource, shares in ask.containers:
            given = self._allocate(resource, shares)
            if not given:
                for name, one in found:
                    self._free(name, one)
                return False
            found.append((resource, given))
        self._allocated.extend(given for _, given in found)
        return True

    def _allocate(self, resource: str, shares: int) -> Given:
        """Allocate devices to a container; nothing where they do not fit."""
        pool = self.plan.pool(resource)
        if pool is None:
            return ()
        # The DeviceClass of a resource selects the devices of that resource.
        offered = [each for each in self._devices if each.attributes["resource"] == resource]
        used = {each.name: self._used[each.uuid] for each in offered if each.uuid in self._used}
        found = allocate_first_fit(offered, used, [_request(pool, shares)])
        if found is None:
            return ()
        uuids = {device.name: device.uuid for device in offered}
        positions = {group.uuid: at for at, group in enumerate(pool.groups)}
        for _, name, amounts in found:
            _add(self._used, uuids[name], tuple(amounts.items()))
        each = shares // len(found)
        return tuple((positions[uuids[name]], each) for _, name, _ in found)

    def admit(self, resource: str, _shares: int, now: float) -> Given:
        """Start the next container that the scheduler allocated devices to: it has them."""
        given = self._allocated.popleft()
        for uuid, amounts in self._amounts(resource, given):
            self._expect(now + PREPARED_AFTER, uuid, amounts)
        return given

    def release(self, resource: str, given: Given, now: float) -> None:
        """End a container. The scheduler counts its devices as free at once."""
        for uuid, freed in self._free(resource, given):
            self._expect(now + UNPREPARED_AFTER, uuid, freed)

    def _free(self, resource: str, given: Given) -> list[tuple[str, tuple[tuple[str, int], ...]]]:
        """Count devices as free again; the changes by UUID."""
        found = [
            (uuid, tuple((name, -amount) for name, amount in amounts))
            for uuid, amounts in self._amounts(resource, given)
        ]
        for uuid, freed in found:
            _add(self._used, uuid, freed)
        return found

    def look(self) -> None:
        """Publish another order, if what is known by now changes it."""
        now, self.refresh = self.refresh or 0.0, None
        while self._coming and self._coming[0][0] <= now:
            _, uuid, change = heappop(self._coming)
            _add(self._prepared, uuid, change)
        ordered = in_order(self._devices, self._facts, self._dra.settings, self._prepared)
        if ordered != self._devices:
            self._devices, self._written_at = ordered, now
        if self._coming:
            self.refresh = self._due(self._coming[0][0])

    def _pool(self, resource: str) -> Pool:
        return next(pool for pool in self.plan.pools if pool.resource == resource)

    def _amounts(
        self, resource: str, given: Given
    ) -> list[tuple[str, tuple[tuple[str, int], ...]]]:
        """What a pod with these shares consumes, by UUID."""
        pool = self._pool(resource)
        by_uuid = {device.uuid: device for device in self._devices}
        found = []
        for position, count in given:
            uuid = pool.groups[position].uuid
            request = evolve(_request(pool, count), count=1)
            ((_, _, amounts),) = allocate_first_fit([by_uuid[uuid]], {}, [request]) or ()
            found.append((uuid, tuple(amounts.items())))
        return found

    def _expect(self, when: float, uuid: str, change: tuple[tuple[str, int], ...]) -> None:
        heappush(self._coming, (when, uuid, change))
        due = self._due(when)
        self.refresh = due if self.refresh is None else min(self.refresh, due)

    def _due(self, when: float) -> float:
        return max(when, self._written_at + self._dra.reorder_every)


@define
class DraScheduler(Scheduler):
    """Binds pods by the devices of each node.

    Of the nodes where a pod fits it takes the one with the most free shares, as by their number.
    """

    _published: Sequence[DraNode] = ()
    _refused: dict[PodAsk, set[int]] = field(factory=dict)
    """Nodes where a request does not fit, until a pod ends there."""

    def ended(self, node: int, ask: PodAsk) -> None:
        """A pod that was bound to a node has ended."""
        super().ended(node, ask)
        for nodes in self._refused.values():
            nodes.discard(node)

    def bind(self) -> tuple[int, int] | None:
        """Bind the pod that waits longest of those that fit somewhere: (pod, node), or None."""
        queues = [(queue[0], ask) for ask, queue in self.waiting.items()]
        for (_, pod), ask in sorted(queues, key=lambda each: each[0]):
            node = self._fitting(ask)
            if node is not None:
                self._bound(ask, node)
                return pod, node
        return None

    def _fitting(self, ask: PodAsk) -> int | None:
        refused = self._refused.setdefault(ask, set())
        free = self._free[ask.wants[0][0]]
        left = [number for number in self.allowed(ask) if number not in refused]
        for number in sorted(left, key=lambda number: -free[number]):
            if self._published[number].allocate(ask):
                return number
            refused.add(number)
        return None


def _request(pool: Pool, shares: int) -> DeviceRequest:
    """What a pod asks for: memory shares are a claim's amount, n places are n GPUs or a claim."""
    if pool.memory:
        return DeviceRequest("gpu", 1, {MEMORY: shares * pool.size})
    if pool.multiple is Multiple.SAME and shares > pool.largest:
        return DeviceRequest("gpu", shares // pool.largest, {SHARES: pool.largest})
    if pool.multiple is Multiple.SAME:
        return DeviceRequest("gpu", 1, {SHARES: shares})
    return DeviceRequest("gpu", shares)


def _add(sums: Sums, uuid: str, change: Sequence[tuple[str, int]]) -> None:
    mine: Mapping[str, int] = sums.get(uuid, {})
    sums[uuid] = {**mine, **{name: mine.get(name, 0) + amount for name, amount in change}}
