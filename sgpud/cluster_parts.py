"""The parts of the connection to the API server; see `cluster_link`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sgpud.bridge import Reactor
from sgpud.cluster.client import ApiClient
from sgpud.cluster.credentials import Credentials
from sgpud.cluster.node_name import NodeName
from sgpud.cluster.pods import PodWatcher
from sgpud.core.cluster.pods import PodsChange
from sgpud.core.status.view import ClusterView


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
        # A watch has connections of its own: one that hangs is cut with all the others.
        self._watching = ApiClient(reactor, credentials)
        self._pods = PodWatcher(reactor, self._watching, on_pods, changed)

    @property
    def view(self) -> ClusterView:
        """What people see of it."""
        problems = (self._name.problem, self._pods.problem)
        return ClusterView(
            node=self._name.name,
            pods_followed=self._pods.following,
            problems=tuple(problem for problem in problems if problem),
        )

    def start(self, node: str) -> None:
        """Begin; `node` is the configured name of this Node, or empty."""
        self._name.find(node)

    def stop(self) -> None:
        """End everything."""
        self._name.stop()
        self._pods.stop()
        self._watching.reset()

    def _named(self, node: str) -> None:
        self._pods.start(node)
