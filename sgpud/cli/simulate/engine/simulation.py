"""What becomes of a list of pods on some nodes: the daemon's own decisions, played over time.

Pods come and end; a scheduler that sees only numbers binds them; each node places them with the
code that the daemon runs, or fails them. No clock is read and nothing is random: the same list
gives the same outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import chain

from attrs import define, evolve, field

from sgpud.cli.simulate.engine.dra import DraNode, DraScheduler
from sgpud.cli.simulate.engine.node import Given, ShortError, SimulatedNode
from sgpud.cli.simulate.engine.scheduler import Ask, Scheduler
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
from sgpud.core.planning.plan import GpuShares, Plan, Pool
from sgpud.core.sharing.limits import check_size
from sgpud.core.sharing.rules import Multiple


@define
class SimulatedPod:
    """A request while it is played."""

    request: PodRequest
    queued: int = 0
    """The step in which it began to wait."""
    tries: int = 0
    placed: float | None = None
    ended: float | None = None
    node: int | None = None
    given: Given = ()
    given_up: bool = False
    waits: set[WaitReason] = field(factory=set)
    failures: list[PodFailure] = field(factory=list)

    def entry(self, positions: Sequence[int]) -> PodResult:
        """What became of it; `positions` on the node of the GPUs of its pool."""
        end = PodOutcome.PLACED if self.placed is not None else PodOutcome.WAITING
        return PodResult(
            self.request,
            PodOutcome.FAILED if self.given_up else end,
            self.placed,
            self.ended,
            self.node,
            {positions[position]: count for position, count in self.given},
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
    check_size(cluster.sharing, cluster.gpus)
    nodes = [_node(cluster) for _ in range(cluster.nodes)]
    published = [node for node in nodes if isinstance(node, DraNode)]
    scheduler = (
        DraScheduler(len(nodes), published=published) if published else Scheduler(len(nodes))
    )
    run = _Run(cluster, [SimulatedPod(request) for request in requests], scheduler, nodes)
    run.start()
    while run.events:
        run.next()
    return run.outcome()


def empty_plan(cluster: Cluster) -> Plan:
    """The plan of one of the nodes before anything runs."""
    return _node(cluster).plan


def _node(cluster: Cluster) -> SimulatedNode | DraNode:
    gpus = tuple(evolve(gpu, fake=True) for gpu in cluster.gpus)
    node = SimulatedNode.of(cluster.sharing, gpus)
    return DraNode.of(cluster.sharing, gpus, node.plan, cluster.dra) if cluster.dra else node


@define
class _Run:
    """A simulation under way: what happens next, and where everything stands."""

    cluster: Cluster
    pods: list[SimulatedPod]
    scheduler: Scheduler
    nodes: Sequence[SimulatedNode | DraNode]
    events: list[tuple[float, int, int, int]] = field(factory=list)
    """A heap of (when, what, in order, of which pod or node)."""
    tracks: list[dict[str, list[GpuTrack]]] = field(factory=list)
    """By node, resource, and position of the GPU in the pool."""
    reporting: set[int] = field(factory=set)
    """Nodes of which a report is to come."""
    seen: dict[tuple[Ask, WaitReason], int] = field(factory=dict)
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
            self.nodes[0].plan.notes if self.nodes else (),
        )

    def _track(self, number: int, pool: Pool, group: GpuShares) -> GpuTrack:
        order = sorted(self.cluster.gpus, key=lambda gpu: gpu.order)
        position = next(at for at, gpu in enumerate(order) if gpu.uuid == group.uuid)
        gpu, shares = order[position], group.given + group.unheld
        usable = max(0, (gpu.memory or 0) - gpu.reserved - self.cluster.sharing.reserve_memory)
        each = group.size or usable // max(1, shares)
        return GpuTrack(
            GpuHistory(number, position, gpu, pool.resource, shares, each, pool.multiple)
        )

    def _positions(self, pod: SimulatedPod) -> list[int]:
        """The positions on its node of the GPUs of a pod's pool."""
        if pod.node is None:
            return []
        return [track.of.position for track in self.tracks[pod.node][pod.request.resource]]

    def _comes(self, which: int, now: float) -> None:
        pod = self.pods[which]
        pod.queued = self.step
        self.last = now
        self.scheduler.queue(which, pod.request.resource, pod.request.shares)

    def _ends(self, pod: SimulatedPod, now: float) -> None:
        if pod.node is not None:
            pod.ended = self.last = now
            self.nodes[pod.node].release(pod.request.resource, pod.given, now)
            self.scheduler.ended(pod.node, pod.request.resource, pod.request.shares)
            self._use(pod, pod.node, now, -1)
            self._follow(pod.node, now)

    def _start(self, which: int, node: int, now: float) -> None:
        """Start a pod on the node that the scheduler bound it to; it may fail there."""
        pod = self.pods[which]
        request = pod.request
        pod.tries += 1
        self._explain(pod)
        try:
            pod.given = self.nodes[node].admit(request.resource, request.shares, now)
        except (ShortError, RefusedError) as error:
            rule = error.rule.value if isinstance(error, RefusedError) else "kubelet"
            pod.failures.append(PodFailure(now, node, rule, str(error)))
            self.scheduler.ended(node, request.resource, request.shares)
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

    def _use(self, pod: SimulatedPod, node: int, now: float, sign: int) -> None:
        tracks = self.tracks[node][pod.request.resource]
        for position, count in pod.given:
            track, uses = tracks[position], pod.request.uses
            memory = track.of.each * count if uses is None else uses
            track.move(now, sign * count, sign * memory)

    def _follow(self, number: int, now: float) -> None:
        """Have the node look and report when it is going to, where that can bring news."""
        node = self.nodes[number]
        if node.refresh is not None:
            self._push(node.refresh, _LOOKS, number)
        if node.news and number not in self.reporting:
            self.reporting.add(number)
            phase = REPORT_EVERY * number / self.cluster.nodes
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
        for ask in self.scheduler.waiting():
            resource, shares = ask
            if resource not in rooms:
                rooms[resource] = [node.room(resource) for node in self.nodes]
            self.seen[ask, self._why(resource, shares, rooms[resource])] = self.step

    def _why(self, resource: str, shares: int, rooms: Sequence[Sequence[int]]) -> WaitReason:
        if sum(map(sum, rooms)) < shares:
            return WaitReason.FULL
        pool = self.nodes[0].plan.pool(resource)
        multiple = pool.multiple if pool else Multiple.ANY
        if any(fits(multiple, room, shares) for room in rooms):
            return WaitReason.UNSEEN
        return WaitReason.SPLIT

    def _explain(self, pod: SimulatedPod) -> None:
        """Write down why a pod has waited since it came."""
        ask = (pod.request.resource, pod.request.shares)
        pod.waits.update(
            wait for wait in WaitReason if self.seen.get((ask, wait), -1) >= pod.queued
        )


def never_fits(plan: Plan, resource: str, shares: int) -> str | None:
    """Why no node with this plan could ever place a request; None where an empty one can."""
    pool = plan.pool(resource)
    sizes = [group.given + group.unheld for group in pool.groups] if pool else []
    if pool is None or not any(sizes):
        known = ", ".join(each.resource for each in plan.pools if each.groups)
        return f"no GPU is shared as {resource}, but as {known or 'nothing'}"
    if fits(pool.multiple, sizes, shares):
        return None
    return (
        f"{shares} shares never fit: a node has {len(sizes)} GPUs with up to {max(sizes)} shares "
        f'of {resource}, and several shares in one container are "{pool.multiple.value}"'
    )


def fits(multiple: Multiple, room: Sequence[int], shares: int) -> bool:
    """Whether GPUs with so many free shares each can take a request together."""
    if multiple is Multiple.DISTINCT:
        return sum(free > 0 for free in room) >= shares
    if multiple is Multiple.ANY:
        return sum(room) >= shares
    one = multiple is Multiple.SAME or shares == 1
    return one and max(room, default=0) >= shares
