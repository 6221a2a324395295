"""Share ids: `<stem>::<n>`. The stem of a place is its GPU's UUID; that of memory names its pool.

A memory share is an amount, not a place: its id names no GPU, and is bound to one when it is given.
"""

from __future__ import annotations

import re
from hashlib import sha256

from sgpud.core.intset import IntSet
from sgpud.core.json_checks import UUID

SEPARATOR = "::"
LONGEST_ID = 63
"""Characters of a device id, at most (the kubelet treats ids as label-sized strings)."""
MESSAGE_LIMIT = 4 * 1024 * 1024
"""Bytes of one ListAndWatch message that the kubelet takes: gRPC's default receive limit."""

_POOL = re.compile(r"[a-z0-9._-]{1,32}-[0-9a-f]{8}", re.ASCII)
_ID = re.compile(rf"([^:]+){SEPARATOR}(0|[1-9][0-9]{{0,8}})", re.ASCII)
_NAME = 32
"""Characters of a resource's name in a stem."""


def memory_stem(resource: str) -> str:
    """The stem of the ids of a pool of memory shares: no other pool's, and no GPU's UUID."""
    name = re.sub(r"[^a-z0-9._-]", "-", resource.rpartition("/")[2].lower())[:_NAME]
    return f"{name}-{sha256(resource.encode()).hexdigest()[:8]}"


def share_id(stem: str, number: int) -> str:
    """The id of share `number` of the GPU, or of the pool."""
    return f"{stem}{SEPARATOR}{number}"


def parse_share_id(text: str) -> tuple[str, int] | None:
    """(stem, number) of an id of ours; None for everything else, never an error."""
    found = _ID.fullmatch(text) if len(text) <= LONGEST_ID else None
    if not found or not (UUID.fullmatch(found[1]) or _POOL.fullmatch(found[1])):
        return None
    return found[1], int(found[2])


def listed_bytes(uuid: str, numbers: IntSet) -> int:
    """Bytes that these shares of a GPU can take in a list message, at most.

    A Device is tag and length (2 bytes), id (2 + its length), health (2 + 9: "Unhealthy") and
    topology (up to 6: three nested tags and lengths, a NUMA node below 128). Counted with the
    longest health and with a NUMA node, so that neither a GPU that falls sick nor a reload that
    publishes NUMA nodes makes a message too large that was not.
    """
    fixed = 2 + 2 + len(uuid) + len(SEPARATOR) + 2 + len("Unhealthy") + 6
    return len(numbers) * fixed + _digits(numbers)


def _digits(numbers: IntSet) -> int:
    """Characters of all these numbers, written in decimal."""
    end = numbers.ranges[-1][1] if numbers else 0
    powers = (10**digits for digits in range(1, len(str(end))))
    return len(numbers) + sum(len(numbers & IntSet.span(power, end)) for power in powers)
