"""What becomes of a list of pods on some nodes: the daemon's own decisions, played over time.

Pods come and end; a scheduler that sees only numbers binds them; each node places them with the
code that the daemon runs, or fails them. No clock is read and nothing is random: the same list
gives the same outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import Protocol

from attrs import define, evolve, field

from sgpud.cli.simulate.engine.baseline import SeeingScheduler, SeenNode
from sgpud.cli.simulate.engine.dra import DraNode, DraScheduler
from sgpud.cli.simulate.engine.node import Given, ShortError, SimulatedNode
from sgpud.cli.simulate.engine.rooms import fits
from sgpud.cli.simulate.engine.scheduler import PodAsk, Scheduler
from sgpud.cli.simulate.engine.values import (
    Cluster,
    GpuHistory,
    PodFailure,
    PodOutcome,
    PodRequest,
    PodResult,
    SimulationResult,
    UsageStep,
    WaitReason,
)
from sgpud.core.allocation.allocate import RefusedError
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.planning.plan import GpuShares, Plan, Pool
from sgpud.core.sharing.limits import check_size
from sgpud.core.sharing.rules import Sharing


class PlacingNode(Protocol):
    """A node that places containers on its GPUs."""

    @property
    def plan(self) -> Plan:
        """How its GPUs are shared."""

    @property
    def refresh(self) -> float | None:
        """When it looks for ended pods next; None where that would bring nothing new."""

    @property
    def news(self) -> bool:
        """Whether what it reports has changed, or is about to."""

    def room(self, resource: str) -> list[int]:
        """How many shares of each GPU nobody holds."""

    def report(self, now: float) -> dict[str, int]:
        """The allocatable shares of each resource."""

    def look(self) -> None:
        """Look for ended pods."""

    def admit(self, resource: str, shares: int, now: float) -> Given:
        """Start a container. ShortError, RefusedError: the pod fails."""

    def release(self, resource: str, given: Given, now: float) -> None:
        """End a container."""


@define
class SimulatedPod:
    """A request while it is played."""

    request: PodRequest
    ask: PodAsk
    queued: int = 0
    """The step in which it began to wait."""
    tries: int = 0
    placed: float | None = None
    ended: float | None = None
    node: int | None = None
    given: tuple[Given, ...] = ()
    """What each container has."""
    given_up: bool = False
    waits: set[WaitReason] = field(factory=set)
    failures: list[PodFailure] = field(factory=list)

    def entry(self, positions: Mapping[str, Sequence[int]]) -> PodResult:
        """What became of it; `positions` on its node of the GPUs of each pool."""
        end = PodOutcome.PLACED if self.placed is not None else PodOutcome.WAITING
        return PodResult(
            self.request,
            PodOutcome.FAILED if self.given_up else end,
            self.placed,
            self.ended,
            self.node,
            tuple(
                {positions[container.resource][position]: count for position, count in given}
                for container, given in zip(self.request.containers, self.given, strict=False)
            ),
            tuple(wait for wait in WaitReason if wait in self.waits),
            tuple(self.failures),
        )


@define
class GpuTrack:
    """What one GPU has now, and had."""

    of: GpuHistory
    held: int = 0
    memory: int = 0
    uses: list[UsageStep] = field(factory=list)

    def move(self, now: float, shares: int, memory: int) -> None:
        """Add so many shares and bytes from now on."""
        self.held += shares
        self.memory += memory
        if self.uses and self.uses[-1].at == now:
            del self.uses[-1]
        self.uses.append(UsageStep(now, self.held, self.memory))


REPORT_EVERY = 10.0
"""Seconds between a node's status reports (the kubelet's nodeStatusUpdateFrequency)."""
MADE_AGAIN = 1.0
"""Seconds until a controller has made another pod in place of one that failed; twice as long with
each failure, `LONGEST` at most."""
LONGEST = 60.0

_ENDS, _LOOKS, _REPORTS, _COMES = range(4)
"""What happens, in the order of what happens at the same time."""


def simulate(cluster: Cluster, requests: Sequence[PodRequest]) -> SimulationResult:
    """Play the requests, each of which an empty node can place (`never_fits`), on these nodes.

    LimitError where there would be more shares than the kubelet takes or the configuration allows.
    """
    for gpus in dict.fromkeys(cluster.nodes):
        check_size(cluster.sharing, gpus)
    pods = [SimulatedPod(request, _ask(request)) for request in requests]
    by_products = {
        products: cluster.allowed(products) for products in {p.ask.products for p in pods}
    }
    allowed = partial(_allowed, by_products)
    run = _Run(cluster, pods, *_parts(cluster, allowed))
    run.start()
    while run.events:
        run.next()
    return run.outcome()


def _parts(
    cluster: Cluster, allowed: Callable[[PodAsk], Sequence[int]]
) -> tuple[Scheduler, Sequence[PlacingNode]]:
    """The scheduler and the nodes."""
    count, made, dra = len(cluster.nodes), plans(cluster), cluster.dra
    if cluster.baseline:
        seen = [SeenNode.of(made[gpus]) for gpus in cluster.nodes]
        return SeeingScheduler(count, allowed, seen=seen, baseline=cluster.baseline), seen
    if dra:
        published = [
            DraNode.of(cluster.sharing, _faked(gpus), made[gpus], dra) for gpus in cluster.nodes
        ]
        return DraScheduler(count, allowed, published=published), published
    return Scheduler(count, allowed), [_node(cluster.sharing, gpus) for gpus in cluster.nodes]


def plans(cluster: Cluster) -> dict[tuple[Gpu, ...], Plan]:
    """The plan of each kind of node, by its GPUs, before anything runs."""
    return {gpus: _node(cluster.sharing, gpus).plan for gpus in dict.fromkeys(cluster.nodes)}


def _node(sharing: Sharing, gpus: Sequence[Gpu]) -> SimulatedNode:
    return SimulatedNode.of(sharing, _faked(gpus))


def _faked(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """GPUs that need nothing of a node to be given to containers."""
    return tuple(evolve(gpu, fake=True) for gpu in gpus)


def _ask(request: PodRequest) -> PodAsk:
    containers = tuple((each.resource, each.shares) for each in request.containers)
    return PodAsk(request.wants, containers, request.products)


def _allowed(by_products: Mapping[tuple[str, ...], Sequence[int]], ask: PodAsk) -> Sequence[int]:
    return by_products[ask.products]


@define
class _Run:
    """A simulation under way: what happens next, and where everything stands."""

    cluster: Cluster
    pods: list[SimulatedPod]
    scheduler: Scheduler
    nodes: Sequence[PlacingNode]
    events: list[tuple[float, int, int, int]] = field(factory=list)
    """A heap of (when, what, in order, of which pod or node)."""
    tracks: list[dict[str, list[GpuTrack]]] = field(factory=list)
    """By node, resource, and position of the GPU in the pool."""
    reporting: set[int] = field(factory=set)
    """Nodes of which a report is to come."""
    seen: dict[tuple[PodAsk, WaitReason], int] = field(factory=dict)
    """The last step in which pods that ask for so much waited for that reason."""
    step: int = 0
    last: float = 0.0
    """When a pod came, was placed or ended last."""

    def start(self) -> None:
        """Let the nodes report, and have the pods come."""
        for number, node in enumerate(self.nodes):
            self._report(number, 0.0)
            self.tracks.append(
                {
                    pool.resource: [self._track(number, pool, group) for group in pool.groups]
                    for pool in node.plan.pools
                }
            )
        self.events = [
            (pod.request.at, _COMES, number, number) for number, pod in enumerate(self.pods)
        ]
        heapify(self.events)

    def next(self) -> None:
        """Let the next thing happen, and all that follows at once."""
        now, what, _, which = heappop(self.events)
        self.step += 1
        if what == _ENDS:
            self._ends(self.pods[which], now)
        elif what == _COMES:
            self._comes(which, now)
        elif what == _REPORTS:
            self.reporting.discard(which)
            self._report(which, now)
            self._follow(which, now)
        elif self.nodes[which].refresh == now:
            self.nodes[which].look()
            self._follow(which, now)
        while (bound := self.scheduler.bind()) is not None:
            self._start(*bound, now)
        self._mark()

    def outcome(self) -> SimulationResult:
        """All that happened."""
        for number in self.scheduler.pods():
            self._explain(self.pods[number])
        return SimulationResult(
            self.cluster,
            tuple(pod.entry(self._positions(pod)) for pod in self.pods),
            tuple(
                evolve(track.of, uses=tuple(track.uses))
                for pools in self.tracks
                for track in chain.from_iterable(pools.values())
            ),
            min((pod.request.at for pod in self.pods), default=0.0),
            self.last,
            tuple(dict.fromkeys(chain.from_iterable(node.plan.notes for node in self.nodes))),
        )

    def _track(self, number: int, pool: Pool, group: GpuShares) -> GpuTrack:
        order = sorted(self.cluster.nodes[number], key=lambda gpu: gpu.order)
        position = next(at for at, gpu in enumerate(order) if gpu.uuid == group.uuid)
        gpu, shares = order[position], group.given + group.unheld
        usable = max(0, (gpu.memory or 0) - gpu.reserved - self.cluster.sharing.reserve_memory)
        each = group.size or usable // max(1, shares)
        return GpuTrack(
            GpuHistory(number, position, gpu, pool.resource, shares, each, pool.multiple)
        )

    def _positions(self, pod: SimulatedPod) -> dict[str, list[int]]:
        """The positions on a pod's node of the GPUs of each pool."""
        if pod.node is None:
            return {}
        tracks = self.tracks[pod.node]
        return {
            resource: [track.of.position for track in tracks[resource]]
            for resource, _ in pod.ask.wants
        }

    def _comes(self, which: int, now: float) -> None:
        pod = self.pods[which]
        pod.queued = self.step
        self.last = now
        self.scheduler.queue(which, pod.ask)

    def _ends(self, pod: SimulatedPod, now: float) -> None:
        if pod.node is not None:
            pod.ended = self.last = now
            self._release(pod, pod.node, now)
            self.scheduler.ended(pod.node, pod.ask)
            self._use(pod, pod.node, now, -1)
            self._follow(pod.node, now)

    def _start(self, which: int, node: int, now: float) -> None:
        """Start a pod on the node that the scheduler bound it to; it may fail there."""
        pod = self.pods[which]
        request = pod.request
        pod.tries += 1
        self._explain(pod)
        try:
            for each in request.containers:
                given = self.nodes[node].admit(each.resource, each.shares, now)
                pod.given = (*pod.given, given)
        except (ShortError, RefusedError) as error:
            pod.failures.append(_failure(error, node, now))
            self._release(pod, node, now)
            pod.given = ()
            self.scheduler.ended(node, pod.ask)
            pod.given_up = pod.tries >= self.cluster.tries
            if not pod.given_up:
                delay = min(LONGEST, MADE_AGAIN * 2.0 ** (pod.tries - 1))
                self._push(now + delay, _COMES, which)
            self._follow(node, now)
            return
        pod.node, pod.placed, self.last = node, now, now
        self._use(pod, node, now, 1)
        if request.duration is not None:
            self._push(now + request.duration, _ENDS, which)
        self._follow(node, now)

    def _release(self, pod: SimulatedPod, node: int, now: float) -> None:
        """Give back what a pod's containers have."""
        for container, given in zip(pod.request.containers, pod.given, strict=False):
            self.nodes[node].release(container.resource, given, now)

    def _use(self, pod: SimulatedPod, node: int, now: float, sign: int) -> None:
        for container, given in zip(pod.request.containers, pod.given, strict=True):
            tracks = self.tracks[node][container.resource]
            for position, count in given:
                track, uses = tracks[position], container.uses
                memory = track.of.each * count if uses is None else uses
                track.move(now, sign * count, sign * memory)

    def _follow(self, number: int, now: float) -> None:
        """Have the node look and report when it is going to, where that can bring news."""
        node = self.nodes[number]
        if node.refresh is not None:
            self._push(node.refresh, _LOOKS, number)
        if node.news and number not in self.reporting:
            self.reporting.add(number)
            phase = REPORT_EVERY * number / len(self.nodes)
            due = phase + ((now - phase) // REPORT_EVERY + 1) * REPORT_EVERY
            # Rounded, the next report could be due now, again and again.
            self._push(due if due > now else due + REPORT_EVERY, _REPORTS, number)

    def _report(self, number: int, now: float) -> None:
        for resource, allocatable in self.nodes[number].report(now).items():
            self.scheduler.report(number, resource, allocatable)

    def _push(self, when: float, what: int, which: int) -> None:
        heappush(self.events, (when, what, self.step, which))

    def _mark(self) -> None:
        """Note why pods wait."""
        rooms: dict[str, list[list[int]]] = {}
        for ask in self.scheduler.waiting:
            for resource, _ in ask.wants:
                if resource not in rooms:
                    rooms[resource] = [node.room(resource) for node in self.nodes]
            self.seen[ask, self._why(ask, rooms)] = self.step

    def _why(self, ask: PodAsk, rooms: Mapping[str, Sequence[Sequence[int]]]) -> WaitReason:
        numbers = self.scheduler.allowed(ask)
        for resource, shares in ask.wants:
            if sum(sum(rooms[resource][number]) for number in numbers) < shares:
                return WaitReason.FULL
        if any(self._holds(number, ask, rooms) for number in numbers):
            return WaitReason.UNSEEN
        return WaitReason.SPLIT

    def _holds(
        self, number: int, ask: PodAsk, rooms: Mapping[str, Sequence[Sequence[int]]]
    ) -> bool:
        """Whether a node has the sum that a pod asks for, and each container would fit there."""
        plan = self.nodes[number].plan
        return all(
            sum(rooms[resource][number]) >= shares for resource, shares in ask.wants
        ) and all(
            (pool := plan.pool(resource)) is not None
            and fits(pool, rooms[resource][number], shares)
            for resource, shares in ask.containers
        )

    def _explain(self, pod: SimulatedPod) -> None:
        """Write down why a pod has waited since it came."""
        pod.waits.update(
            wait for wait in WaitReason if self.seen.get((pod.ask, wait), -1) >= pod.queued
        )


def _failure(error: ShortError | RefusedError, node: int, now: float) -> PodFailure:
    if isinstance(error, ShortError):
        return PodFailure(now, node, "kubelet", str(error))
    # The kubelet chose the ids, and there is none here: the sentence ends before they come.
    text = error.text.removesuffix(": ").removesuffix("; shares")
    return PodFailure(now, node, error.rule.value, f"{error.rule.value}: {text}")
