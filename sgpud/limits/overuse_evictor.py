"""Has the pods evicted that overuse memory, or says whom it would."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.logger import Logger

from sgpud.bridge import Clock, Timer
from sgpud.core.limits.overuse_eviction import Orders, ordered
from sgpud.core.planning.full_guard import MISSED
from sgpud.core.planning.node import Node


class OveruseEvictor:
    """Follows the node, and orders evictions as `overuse_eviction` decides."""

    _log = Logger()

    def __init__(self, clock: Clock, evict: Callable[[Mapping[str, str]], None]) -> None:
        """`evict` gets the pods to evict now, by UID, each with its reason: these and no others."""
        self._clock = clock
        self._evict = evict
        self._started = clock.seconds()
        self._orders: Orders = {}
        self._node = Node()
        self._stale = Timer(clock)

    def look(self, node: Node) -> None:
        """The node as it is now."""
        self._node = node
        self._decide()

    def stop(self) -> None:
        """Order no more."""
        self._stale.cancel()

    def _decide(self) -> None:
        node, before = self._node, self._orders
        gap = MISSED * node.sharing.measure_every if node.sharing else 0.0
        now = self._clock.seconds()
        self._orders = ordered(before, node.overuse, node.limits, self._started, now, gap)
        standing = {uuid: one for uuid, one in self._orders.items() if one.pod}
        dry_run = node.limits.dry_run
        if dry_run:
            for uuid, one in standing.items():
                if uuid not in before or before[uuid].pod != one.pod:
                    self._log.warn(
                        "Without [limits] dry_run, pod {pod} would be evicted: {why}",
                        pod=one.named,
                        why=one.why,
                    )
        self._evict({} if dry_run else {one.pod: one.why for one in standing.values()})
        self._stale.cancel()
        if standing:
            # Without new samples nobody calls: an order must not outlast what it is based on.
            self._stale.set(gap, self._decide)
