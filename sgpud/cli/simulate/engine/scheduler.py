"""The scheduler of a simulation: it sees what each node reported, less what it bound there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from attrs import define, field, frozen


@frozen(cache_hash=True)
class PodAsk:
    """What a pod asks the scheduler for; pods that ask for the same are of one kind."""

    wants: tuple[tuple[str, int], ...]
    """(resource, shares), each resource once: what a scheduler sees that counts shares."""
    containers: tuple[tuple[str, int], ...]
    """The same of each container."""
    products: tuple[str, ...] = ()


@define
class Scheduler:
    """Binds pods to nodes by the number of shares alone.

    Pods wait in the order in which they came; one that fits nowhere keeps none behind it waiting.
    """

    _nodes: int
    allowed: Callable[[PodAsk], Sequence[int]]
    """The nodes that a pod can be bound to by their labels."""
    _free: dict[str, list[int]] = field(factory=dict)
    """Allocatable as reported less requested, by resource and node. It can be negative."""
    _reported: dict[tuple[str, int], int] = field(factory=dict)
    waiting: dict[PodAsk, deque[tuple[int, int]]] = field(factory=dict)
    """(turn in the queue, pod), for each kind of request."""
    _turn: int = 0

    def report(self, node: int, resource: str, allocatable: int) -> None:
        """A node's status came."""
        free = self._free.setdefault(resource, [0] * self._nodes)
        free[node] += allocatable - self._reported.get((resource, node), 0)
        self._reported[resource, node] = allocatable

    def ended(self, node: int, ask: PodAsk) -> None:
        """A pod that was bound to a node has ended or failed."""
        for resource, shares in ask.wants:
            self._free[resource][node] += shares

    def queue(self, pod: int, ask: PodAsk) -> None:
        """A pod was made."""
        self._turn += 1
        self.waiting.setdefault(ask, deque()).append((self._turn, pod))

    def bind(self) -> tuple[int, int] | None:
        """Bind the pod that waits longest of those that fit somewhere: (pod, node), or None.

        Of the nodes where it fits it takes the one with the most free shares, the first of equals.
        """
        most = {resource: max(free) for resource, free in self._free.items()}
        fitting = sorted(
            (queue[0], ask)
            for ask, queue in self.waiting.items()
            if all(shares <= most.get(resource, 0) for resource, shares in ask.wants)
        )
        for (_, pod), ask in fitting:
            node = self._node(ask)
            if node is not None:
                self._bound(ask, node)
                return pod, node
        return None

    def pods(self) -> Iterator[int]:
        """The pods that wait."""
        return (pod for queue in self.waiting.values() for _, pod in queue)

    def _node(self, ask: PodAsk) -> int | None:
        able = [
            node
            for node in self.allowed(ask)
            if all(self._free[resource][node] >= shares for resource, shares in ask.wants)
        ]
        free = self._free[ask.wants[0][0]]
        return max(able, key=free.__getitem__, default=None)

    def _bound(self, ask: PodAsk, node: int) -> None:
        """Bind the pod that waits longest with that request to a node."""
        queue = self.waiting[ask]
        queue.popleft()
        if not queue:
            del self.waiting[ask]
        for resource, shares in ask.wants:
            self._free[resource][node] -= shares
