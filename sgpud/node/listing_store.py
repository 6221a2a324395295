"""The memory shares listed last, kept in the state directory.

Their number follows from the memory that the driver leaves free. Another driver may leave less; the
shares that the kubelet knows are then removed in two steps, even across a restart.
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
"""The largest share number accepted: more than any GPU can have at 64 MiB each."""


class ListingStore:
    """Saves the listed memory shares, and restores them at start."""

    _log = Logger()

    def __init__(self, store: StateDirectory) -> None:
        """Nothing is written before `keep` is called."""
        self._store = store
        self._written: Mapping[Key, ListedShares] | None = None

    def listing(self) -> Listing:
        """The last listing; empty if none was saved."""
        content = self._store.read(MEMORY_SHARES)
        if content is None:
            return Listing()
        try:
            blocks = dict(map(_block, json.loads(content)["shares"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
            self._log.warn(
                "{path} is corrupt; ignoring it: {problem!r}",
                path=str(self._store.path(MEMORY_SHARES)),
                problem=problem,
            )
            return Listing()
        return Listing(blocks)

    def keep(self, listing: Listing) -> None:
        """Save the listed memory shares if they have changed."""
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
        """Whether an earlier process may have left a file."""
        return self._written is None and self._store.path(MEMORY_SHARES).exists()


def _block(entry: Any) -> tuple[Key, ListedShares]:
    """Parse an entry of the file; one of Python's errors if it is invalid."""
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
