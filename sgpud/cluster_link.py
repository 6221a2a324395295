"""What sgpud says to the API server, and hears of it, whichever API the kubelet is served with.

The parts are imported where there are credentials only: a node without any spends nothing on TLS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from sgpud.bridge import Reactor, Timer
from sgpud.config.values import ApiServerUse, Config
from sgpud.core.status.view import ClusterView

if TYPE_CHECKING:
    from sgpud.cluster.credentials import Credentials
    from sgpud.cluster_parts import ClusterParts
    from sgpud.core.cluster.pods import PodsChange

PARTS = "sgpud.cluster_parts"
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
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when the view has changed."""
        self._reactor = reactor
        self._config = config
        self._environment = environment
        self._follower = follower
        self._changed = changed
        self._credentials: Credentials | None = None
        """Once they were looked for, and are there."""
        self._looked = False
        self._parts: ClusterParts | None = None
        self._begin = Timer(reactor)

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

    def start(self) -> None:
        """Begin in a moment: this process serves."""
        if self._parts is None:
            self._begin.at_most(AFTER, self._open)

    def stop(self) -> None:
        """End it."""
        self._begin.cancel()
        if self._parts is not None:
            self._parts.stop()

    def _open(self) -> None:
        if not self.late() or self._credentials is None:
            return
        from sgpud.cluster_parts import ClusterParts  # noqa: PLC0415 - only with credentials

        self._parts = ClusterParts(
            self._reactor, self._credentials, self._environment, self._learned, self._changed
        )
        self._parts.start(self._config.dra.node_name)

    def _learned(self, change: PodsChange) -> None:
        names = {uid: (pod.namespace, pod.name) for uid, pod in change.pods.items()}
        self._follower.pods_named(names)
        if change.ended:
            self._follower.pods_ended(change.ended)
