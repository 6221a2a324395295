"""Which shares were listed last, kept in the state directory.

The kubelet's checkpoint names those that were Healthy. What drains is missing there, and how many
memory shares there are follows from what the driver leaves, which another driver may change: both
go by two steps, also over a restart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sgpud.config.schema.formats import resource_name
from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import Key
from sgpud.core.planning.listing import Draining, ListedShares, Listing
from sgpud.core.sharing.share_id import MESSAGE_LIMIT, listed_bytes, parse_share_id, share_id
from sgpud.core.units import LARGEST
from sgpud.node.store import StateDirectory

LISTING = "listing.json"
_MOST = 1 << 20
"""The largest share number accepted: more than any GPU can have at 64 MiB each."""


class ListingStore:
    """Saves the listed shares, and restores them at start."""

    def __init__(self, store: StateDirectory) -> None:
        """Nothing is written before `keep` is called."""
        self._store = store
        self._kept: Mapping[Key, ListedShares] | None = None

    def listing(self, now: float) -> Listing:
        """The last listing; empty if none was saved. What drained begins again, at `now`."""
        content = self._store.read(LISTING)
        if content is None:
            return Listing()
        try:
            blocks = dict(_block(entry, now) for entry in json.loads(content)["shares"])
            _check_size(blocks)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
            self._store.set_aside(LISTING, f"{type(problem).__name__}: {problem}")
            return Listing()
        return Listing(blocks)

    def keep(self, listing: Listing) -> None:
        """Save the listed shares if they have changed."""
        if listing.blocks == self._kept:
            return
        self._kept = listing.blocks
        entries = [
            {
                "resource": resource,
                "gpu": uuid,
                "size": block.size,
                "active": block.active.ranges,
                "draining": block.leaving.ranges,
            }
            for (resource, uuid), block in sorted(listing.blocks.items())
        ]
        self._store.write(LISTING, json.dumps({"shares": entries}).encode())


def _block(entry: Any, now: float) -> tuple[Key, ListedShares]:
    """Parse an entry of the file; one of Python's errors if it is invalid."""
    resource, uuid, size = entry["resource"], entry["gpu"], entry["size"]
    active, draining = _numbers(entry["active"]), _numbers(entry["draining"])
    known = parse_share_id(share_id(uuid, _MOST)) == (uuid, _MOST)
    if resource_name(resource) or not known or not 0 <= _whole(size) <= LARGEST:
        raise ValueError(resource, uuid, size)
    leaving = (Draining(draining - active, now),) if draining - active else ()
    return (resource, uuid), ListedShares(active, leaving, size)


def _numbers(ranges: Any) -> IntSet:
    """These half-open ranges, in any order, in one pass over them."""
    for start, stop in ranges:
        if not 0 <= _whole(start) < _whole(stop) <= _MOST:
            raise ValueError(start, stop)
    return IntSet.union(IntSet.span(start, stop) for start, stop in ranges)


def _check_size(blocks: Mapping[Key, ListedShares]) -> None:
    """ValueError if no plan can have listed so many: its list would not reach the kubelet."""
    sizes: dict[str, int] = {}
    for (resource, uuid), block in blocks.items():
        sizes[resource] = sizes.get(resource, 0) + listed_bytes(uuid, block.listed)
    for resource, size in sizes.items():
        if size > MESSAGE_LIMIT:
            reason = f"the list of {resource} would have {size} bytes"
            raise ValueError(reason)


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError(value)
