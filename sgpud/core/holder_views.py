"""The holders of shares, as people see them."""

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


def holder_views(node: Node) -> dict[Key, tuple[HolderView, ...]]:
    """The holders by resource and GPU, the oldest first."""
    found: dict[Key, list[HolderView]] = {}
    for key, view in _views(node):
        found.setdefault(key, []).append(view)
    return {
        key: tuple(sorted(views, key=lambda view: (view.since, view.namespace, view.pod)))
        for key, views in found.items()
    }


def _views(node: Node) -> Iterator[tuple[Key, HolderView]]:
    if node.books is None:
        return
    for holder in node.books.holders:
        names = (holder.namespace, holder.name, holder.pod, holder.container)
        for uuid, numbers in holder.shares.items():
            size = len(numbers) * holder.sizes.get(uuid, 0)
            yield (holder.resource, uuid), HolderView(*names, len(numbers), size, holder.since)
    recorded = held(node.books, ()) if node.grants else {}
    for grant in node.grants:
        for uuid, numbers in grant.shares.items():
            key = (grant.resource, uuid)
            fresh = numbers - recorded.get(key, Numbers())
            if fresh:
                size = len(fresh) * grant.sizes.get(uuid, 0)
                yield key, HolderView("", "", "", "", len(fresh), size, grant.at)
