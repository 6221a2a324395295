"""The scheduler of a simulation: it sees what each node reported, less what it bound there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from attrs import define, field

Ask = tuple[str, int]
"""(resource, shares)."""


@define
class Scheduler:
    """Binds pods to nodes by the number of shares alone.

    Pods wait in the order in which they came; one that fits nowhere keeps none behind it waiting.
    """

    _nodes: int
    _free: dict[str, list[int]] = field(factory=dict)
    """Allocatable as reported less requested, by resource and node. It can be negative."""
    _reported: dict[tuple[str, int], int] = field(factory=dict)
    _waiting: dict[Ask, deque[tuple[int, int]]] = field(factory=dict)
    """(turn in the queue, pod), for each kind of request."""
    _turn: int = 0

    def report(self, node: int, resource: str, allocatable: int) -> None:
        """A node's status came."""
        free = self._free.setdefault(resource, [0] * self._nodes)
        free[node] += allocatable - self._reported.get((resource, node), 0)
        self._reported[resource, node] = allocatable

    def ended(self, node: int, resource: str, shares: int) -> None:
        """A pod that was bound to a node has ended or failed."""
        self._free[resource][node] += shares

    def queue(self, pod: int, resource: str, shares: int) -> None:
        """A pod was made."""
        self._turn += 1
        self._waiting.setdefault((resource, shares), deque()).append((self._turn, pod))

    def bind(self) -> tuple[int, int] | None:
        """Bind the pod that waits longest of those that fit somewhere: (pod, node), or None.

        Of the nodes where it fits it takes the one with the most free shares, the first of equals.
        """
        most = {resource: max(free) for resource, free in self._free.items()}
        fitting = [
            (queue[0], ask) for ask, queue in self._waiting.items() if ask[1] <= most.get(ask[0], 0)
        ]
        if not fitting:
            return None
        _, ask = min(fitting)
        resource, _ = ask
        node = self._free[resource].index(most[resource])
        return self._bound(ask, node), node

    def waiting(self) -> Iterator[Ask]:
        """What the pods ask for that fit nowhere, each kind once."""
        return iter(self._waiting)

    def pods(self) -> Iterator[int]:
        """The pods that wait."""
        return (pod for queue in self._waiting.values() for _, pod in queue)

    def _bound(self, ask: Ask, node: int) -> int:
        """Bind the pod that waits longest with that request to a node; the pod."""
        resource, shares = ask
        queue = self._waiting[ask]
        _, pod = queue.popleft()
        if not queue:
            del self._waiting[ask]
        self._free[resource][node] -= shares
        return pod
