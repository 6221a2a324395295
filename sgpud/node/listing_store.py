"""Which memory shares were listed last, kept in the state directory.

How many there are follows from the memory that the driver leaves. With another driver it may leave
less, and what the kubelet knows of the shares then goes by the two steps, also over a restart.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

from sgpud.config.schema.formats import resource_name
from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import Key
from sgpud.core.planning.listing import ListedShares, Listing
from sgpud.core.sharing.share_id import parse_share_id, share_id
from sgpud.core.units import LARGEST
from sgpud.node.store import StateDirectory

MEMORY_SHARES = "memory-shares.json"
_MOST = 1 << 20
"""Numbers of shares that are taken: more than any GPU can have of 64 MiB each."""


class ListingStore:
    """Keeps the listed memory shares, and gives them back at start."""

    _log = Logger()

    def __init__(self, store: StateDirectory) -> None:
        """Nothing is written before `keep`."""
        self._store = store
        self._written: Mapping[Key, ListedShares] | None = None

    def listing(self) -> Listing:
        """What was listed last; empty where nothing is known."""
        content = self._store.read(MEMORY_SHARES)
        if content is None:
            return Listing()
        try:
            blocks = dict(map(_block, json.loads(content)["shares"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
            self._log.warn(
                "{path} is not understood and left aside: {problem!r}",
                path=str(self._store.path(MEMORY_SHARES)),
                problem=problem,
            )
            return Listing()
        return Listing(blocks)

    def keep(self, listing: Listing) -> None:
        """Write the memory shares that are listed, if they are others than before."""
        blocks = {
            key: ListedShares(block.listed, size=block.size)
            for key, block in sorted(listing.blocks.items())
            if block.size
        }
        if blocks == self._written or not (blocks or self._written or self._known):
            return
        entries = [
            {"resource": resource, "gpu": uuid, "size": block.size, "numbers": block.active.ranges}
            for (resource, uuid), block in blocks.items()
        ]
        self._store.write(MEMORY_SHARES, json.dumps({"shares": entries}).encode())
        self._written = blocks

    @property
    def _known(self) -> bool:
        """Whether there may be a file from before."""
        return self._written is None and self._store.path(MEMORY_SHARES).exists()


def _block(entry: Any) -> tuple[Key, ListedShares]:
    """An entry of the file; an error of Python's where it is none."""
    resource, uuid, size = entry["resource"], entry["gpu"], entry["size"]
    numbers = IntSet()
    for start, stop in entry["numbers"]:
        if not 0 <= _whole(start) < _whole(stop) <= _MOST:
            raise ValueError(start, stop)
        numbers |= IntSet.span(start, stop)
    known = parse_share_id(share_id(uuid, _MOST)) == (uuid, _MOST)
    if resource_name(resource) or not known or not 0 < _whole(size) <= LARGEST:
        raise ValueError(resource, uuid, size)
    return (resource, uuid), ListedShares(numbers, size=size)


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError(value)
