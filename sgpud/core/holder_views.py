"""The holders of one GPU, as people see them."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from sgpud.core.holding import Key, held
from sgpud.core.node import Node
from sgpud.core.numbers import Numbers


@frozen
class HolderView:
    """Who holds shares of one GPU."""

    namespace: str
    """Empty, as the pod's name, until podresources has told it."""
    pod: str
    uid: str
    """The pod's UID; empty for shares that were given this moment and are in no record yet."""
    container: str
    shares: int
    bytes: int
    """Memory that the shares stand for; 0 for places."""
    since: float
    """When they were given, in seconds since the epoch; 0 where nobody knows."""


def holder_views(node: Node, key: Key) -> tuple[HolderView, ...]:
    """The holders of one GPU in one pool, the oldest first."""
    found = sorted(_views(node, key), key=lambda view: (view.since, view.namespace, view.pod))
    return tuple(found)


def _views(node: Node, key: Key) -> Iterator[HolderView]:
    if node.books is None:
        return
    resource, uuid = key
    for holder in node.books.holders:
        if holder.resource == resource and uuid in holder.shares:
            count = len(holder.shares[uuid])
            size = count * holder.sizes.get(uuid, 0)
            names = (holder.namespace, holder.name, holder.pod, holder.container)
            yield HolderView(*names, count, size, holder.since)
    recorded = held(node.books, ()).get(key, Numbers())
    for grant in node.grants:
        fresh = grant.shares.get(uuid, Numbers()) - recorded if grant.resource == resource else None
        if fresh:
            size = len(fresh) * grant.sizes.get(uuid, 0)
            yield HolderView("", "", "", "", len(fresh), size, grant.at)
