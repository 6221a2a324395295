"""The parts of the connection to the API server; see `cluster_link`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from sgpud.bridge import Reactor
from sgpud.cluster.client import ApiClient
from sgpud.cluster.credentials import Credentials
from sgpud.cluster.events import EventRecorder
from sgpud.cluster.eviction import Eviction, EvictionResult, Evictor
from sgpud.cluster.node_name import NodeName
from sgpud.cluster.node_status import AllocatableWriter, ConditionWriter
from sgpud.cluster.pods import PodWatcher
from sgpud.core.cluster.conditions import health_events, node_condition, unhealthy_gpus
from sgpud.core.cluster.events import ClusterEvent, ObjectReference
from sgpud.core.cluster.pods import PodsChange
from sgpud.core.planning.node import Node
from sgpud.core.status.view import ClusterView
from sgpud.node.transition_log import BegunOveruse

REFUSALS_KEPT = 50
"""Refusals that wait for their pod to be known."""


class ClusterParts:
    """What is followed and written, once the name of this Node is known."""

    def __init__(
        self,
        reactor: Reactor,
        credentials: Credentials,
        environment: Mapping[str, str],
        on_pods: Callable[[PodsChange], None],
        changed: Callable[[], None],
    ) -> None:
        """`on_pods` is told of this node's pods; `changed` that the view has changed."""
        self._name = NodeName(reactor, credentials, environment, self._named, changed)
        self._on_pods = on_pods
        self._changed = changed
        # A watch has connections of its own: one that hangs is cut with all the others.
        self._watching = ApiClient(reactor, credentials)
        self._writing = ApiClient(reactor, credentials)
        self._pods = PodWatcher(reactor, self._watching, self._learned, changed)
        self._recorder = EventRecorder(reactor, self._writing, time.time, changed)
        self._condition = ConditionWriter(reactor, self._writing, time.time, changed)
        self._allocatable = AllocatableWriter(reactor, self._writing, changed)
        self._evictor = Evictor(reactor, self._writing, self._evicted)
        self._overuse_evictor = Evictor(reactor, self._writing, self._overuser_evicted)
        self._overusers_evicted = 0
        self._unhealthy: Mapping[str, str] | None = None
        self._refusals: deque[str] = deque(maxlen=REFUSALS_KEPT)
        self._node: Node | None = None

    @property
    def view(self) -> ClusterView:
        """What people see of it."""
        problems = (
            self._name.problem,
            self._pods.problem,
            self._recorder.problem,
            self._condition.writer.problem,
            self._allocatable.writer.problem,
            self._evictor.problem,
            self._overuse_evictor.problem,
        )
        evicted = EvictionResult.EVICTED
        evictions = (*self._evictor.evictions, *self._overuse_evictor.evictions)
        return ClusterView(
            node=self._name.name,
            pods_followed=self._pods.following,
            problems=tuple(problem for problem in problems if problem),
            events=self._recorder.written,
            allocatable_writes=self._allocatable.writer.writes,
            evicted=sum(one.result is evicted for one in evictions),
            overuse_evictions=self._overusers_evicted,
        )

    def start(self, node: str) -> None:
        """Begin; `node` is the configured name of this Node, or empty."""
        self._name.find(node)

    def stop(self) -> None:
        """End everything."""
        evictors = (self._evictor, self._overuse_evictor)
        parts = (self._name, self._pods, self._recorder, *evictors)
        for part in (*parts, self._condition.writer, self._allocatable.writer):
            part.stop()
        self._watching.reset()
        self._writing.reset()

    def reconciled(self, node: Node) -> None:
        """Tell what has changed of the GPUs' health."""
        now = unhealthy_gpus(node)
        if self._unhealthy is None:
            # Those of before this process were told by the one before.
            self._unhealthy = now
        self._node = node
        condition = node_condition(node)
        if self._name.name and condition is not None:
            self._condition.set(condition)
            for event in health_events(self._unhealthy, now, self._name.name):
                self._recorder.record(event)
            self._unhealthy = now

    def shares_refused(self, text: str) -> None:
        """The device plugin has refused shares: the kubelet will say to which pod."""
        self._refusals.append(text)

    def claim_refused(self, claim: str, reason: str, problem: str) -> None:
        """A claim (NAMESPACE/NAME) was not prepared."""
        namespace, _, name = claim.partition("/")
        for pod in self._pods.pods.values():
            if pod.namespace == namespace and name in pod.claims:
                text = f"{reason}: claim {name} is not prepared: {problem}"
                self._recorder.record(ClusterEvent(pod.reference, "ClaimRefused", text))

    def allocatable(self, numbers: Mapping[str, int]) -> None:
        """The numbers that the Node should show."""
        self._allocatable.agreed(numbers)

    def evict(self, pods: Mapping[ObjectReference, str]) -> None:
        """Evict these pods, and no others."""
        self._evictor.evict(pods)

    def overused(self, begun: BegunOveruse) -> None:
        """A container has begun to overuse memory."""
        uid, container = begun.container
        pod = self._pods.pods.get(uid)
        if pod is not None:
            text = f"container {container} {begun.text}"
            self._recorder.record(ClusterEvent(pod.reference, "MemoryOveruse", text))

    def evict_overusers(self, pods: Mapping[str, str]) -> None:
        """Evict these pods for overuse, by UID, and no others: of those that are known for certain.

        While the pods are not followed, none is: it may have been spared since.
        """
        followed = self._pods.pods if self._pods.following else {}
        known = {followed[uid]: why for uid, why in pods.items() if uid in followed}
        self._overuse_evictor.evict(
            {pod.reference: why for pod, why in known.items() if not (pod.finished or pod.spared)}
        )

    def _named(self, node: str) -> None:
        self._pods.start(node)
        self._recorder.start(node)
        self._condition.start(node)
        self._allocatable.start(node)
        if self._node is not None:
            self.reconciled(self._node)

    def _learned(self, change: PodsChange) -> None:
        for event in self._refused(change):
            self._recorder.record(event)
        self._on_pods(change)

    def _refused(self, change: PodsChange) -> Iterator[ClusterEvent]:
        for pod in change.refused:
            for text in self._refusals:
                if text in pod.refusal:
                    yield ClusterEvent(
                        pod.reference,
                        "SharesRefused",
                        f"{text}. `sgpud explain {pod.name}` says more",
                    )
                    break

    def _overuser_evicted(self, eviction: Eviction) -> None:
        self._overusers_evicted += eviction.result is EvictionResult.EVICTED
        self._evicted(eviction)

    def _evicted(self, eviction: Eviction) -> None:
        if eviction.result is EvictionResult.EVICTED:
            text = f"sgpud evicts the pod: {eviction.why}"
            self._recorder.record(ClusterEvent(eviction.pod, "Evicted", text))
        self._changed()
