"""What is done about overuse of memory, put together: it is logged, counted, told and ended."""

from __future__ import annotations

from sgpud.bridge import Reactor
from sgpud.composition.cluster_link import ClusterLink
from sgpud.core.limits.settings import LimitSettings, OveruseAction
from sgpud.core.planning.node import Node
from sgpud.limits.overuse_evictor import OveruseEvictor
from sgpud.node.counters import EventCounters
from sgpud.node.transition_log import OveruseLog


class OveruseActions:
    """Follows the node, and acts on the containers that overuse memory."""

    def __init__(self, reactor: Reactor, counters: EventCounters, cluster: ClusterLink) -> None:
        """Nobody does at first."""
        self._log = OveruseLog()
        self._counters = counters
        self._cluster = cluster
        self._evictor = OveruseEvictor(reactor, cluster.evict_overusers)
        self._limits = LimitSettings()

    @property
    def problem(self) -> str:
        """Why nobody is evicted although that is configured, or empty."""
        evicts = self._limits.overuse is OveruseAction.EVICT and not self._limits.dry_run
        if not evicts or self._cluster.usable:
            return ""
        return (
            '[limits] overuse is "evict", but no pod is evicted: there are no credentials for the'
            ' API server, or [kubelet] api_server is "never". docs/clusters.md says where sgpud'
            " looks for them"
        )

    def look(self, node: Node) -> None:
        """The node as it is now."""
        self._limits = node.limits
        begun = self._log.look(node)
        self._counters.overused(one.gpu for one in begun)
        self._cluster.overused(begun)
        self._evictor.look(node)

    def stop(self) -> None:
        """Have nobody evicted any more."""
        self._evictor.stop()
