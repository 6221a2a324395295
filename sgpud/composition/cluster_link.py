"""What sgpud says to the API server, and hears of it, whichever API the kubelet is served with.

The parts are imported where there are credentials only: a node without any spends nothing on TLS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from attrs import evolve

from sgpud.bridge import Reactor, Timer
from sgpud.config.values import ApiServerUse, Config
from sgpud.core.allocation.allocate import RefusedError
from sgpud.core.planning.node import Node
from sgpud.core.status.view import ClusterView
from sgpud.node.transition_log import BegunOveruse

if TYPE_CHECKING:
    from sgpud.cluster.credentials import Credentials
    from sgpud.composition.cluster_parts import ClusterParts
    from sgpud.core.cluster.events import ObjectReference
    from sgpud.core.cluster.pods import PodsChange

PARTS = "sgpud.composition.cluster_parts"
"""What is imported where there are credentials."""
AFTER = 1.0
"""Seconds from the beginning of serving until anything is asked: pods come first."""


class PodFollower(Protocol):
    """Hears of this node's pods."""

    def pods_named(self, names: Mapping[str, tuple[str, str]]) -> None:
        """Namespace and name by UID."""

    def pods_ended(self, pods: frozenset[str]) -> None:
        """These have ended."""


class ClusterLink:
    """The connection to the API server, as long as this process serves."""

    def __init__(
        self,
        reactor: Reactor,
        config: Config,
        environment: Mapping[str, str],
        follower: PodFollower,
        spared: Callable[[Mapping[str, str]], None],
        changed: Callable[[], None],
    ) -> None:
        """`spared` gets the pods that are never stopped for the memory that they use, and why.

        `changed` is called when the view has changed.
        """
        self._reactor = reactor
        self._config = config
        self._environment = environment
        self._follower = follower
        self._on_spared = spared
        self._spared: Mapping[str, str] = {}
        self._changed = changed
        self._credentials: Credentials | None = None
        """Once they were looked for, and are there."""
        self._looked = False
        self._parts: ClusterParts | None = None
        self._begin = Timer(reactor)
        self._used = config.kubelet.api_server
        self._node: Node | None = None
        self._first: Node | None = None
        """With what was known of the GPUs at first: Events tell what has changed since."""

    def late(self) -> tuple[str, ...]:
        """The modules that are imported after the first list: none where it is not used."""
        if self._config.kubelet.api_server is ApiServerUse.AUTO and not self._looked:
            from sgpud.cluster.credentials import Credentials  # noqa: PLC0415 - not at the start

            self._looked = True
            found = Credentials(self._config.dra.kubeconfig, self._environment, time.time)
            self._credentials = found if found.exist() else None
        return (PARTS,) if self._credentials else ()

    @property
    def view(self) -> tuple[ClusterView, ...]:
        """What people see of it; empty where it is not used."""
        return (self._parts.view,) if self._parts else ()

    @property
    def usable(self) -> bool:
        """Whether there are credentials, as far as they were looked for, and they may be used."""
        used = self._config.kubelet.api_server is ApiServerUse.AUTO
        return used and (not self._looked or self._credentials is not None)

    def start(self) -> None:
        """Begin in a moment: this process serves."""
        if self._parts is None:
            self._begin.at_most(AFTER, self._open)

    def stop(self) -> None:
        """End it."""
        self._begin.cancel()
        if self._parts is not None:
            self._parts.stop()

    def configured(self, config: Config) -> None:
        """The configuration in use; what needs a restart is not looked at."""
        self._config = evolve(config, kubelet=evolve(config.kubelet, api_server=self._used))

    def reconciled(self, node: Node) -> None:
        """The node as it is now."""
        if self._first is None and node.gpus is not None:
            self._first = node
        self._node = node
        if self._parts is not None:
            self._parts.reconciled(node)

    def refused(self, refusal: RefusedError) -> None:
        """The device plugin has refused shares."""
        if self._parts is not None:
            # The kubelet cuts the message that it gives the pod.
            self._parts.shares_refused(f"{refusal.rule.value}: {refusal.text}")

    def claim_refused(self, claim: str, reason: str, problem: str) -> None:
        """A claim (NAMESPACE/NAME) was not prepared."""
        if self._parts is not None:
            self._parts.claim_refused(claim, reason, problem)

    @property
    def fast_status(self) -> bool:
        """Whether the Node is to show the number of memory shares at once."""
        return self._parts is not None and self._config.kubelet.fast_status

    def allocatable(self, numbers: Mapping[str, int]) -> None:
        """The numbers of memory shares that the kubelet's books and the lists agree on."""
        if self._parts is not None:
            self._parts.allocatable(numbers if self._config.kubelet.fast_status else {})

    def evict(self, pods: Mapping[ObjectReference, str]) -> None:
        """Evict these pods, each for its reason, and no others."""
        if self._parts is not None:
            self._parts.evict(pods)

    def overused(self, begun: Iterable[BegunOveruse]) -> None:
        """These containers have begun to overuse memory."""
        if self._parts is not None:
            for one in begun:
                self._parts.overused(one)

    def evict_overusers(self, pods: Mapping[str, str]) -> None:
        """Evict these pods for overuse, by UID, each for its reason, and no others."""
        if self._parts is not None:
            self._parts.evict_overusers(pods)

    def _open(self) -> None:
        if not self.late() or self._credentials is None:
            return
        from sgpud.composition.cluster_parts import ClusterParts  # noqa: PLC0415 - only with credentials

        self._parts = ClusterParts(
            self._reactor, self._credentials, self._environment, self._learned, self._changed
        )
        for node in (self._first, self._node):
            if node is not None:
                self._parts.reconciled(node)
        self._parts.start(self._config.dra.node_name)

    def _learned(self, change: PodsChange) -> None:
        names = {uid: (pod.namespace, pod.name) for uid, pod in change.pods.items()}
        self._follower.pods_named(names)
        spared = {uid: pod.spared for uid, pod in change.pods.items() if pod.spared}
        if spared != self._spared:
            self._spared = spared
            self._on_spared(spared)
        if change.ended:
            self._follower.pods_ended(change.ended)
