"""Checks the types of JSON values from another process; TypeError or ValueError."""

from __future__ import annotations

import re
from typing import TypeVar

UUID = re.compile(
    r"(?![0-9]+\Z)(?![a-z0-9._-]+-[0-9a-f]{8}\Z)(?!.*\.\.)[0-9A-Za-z][0-9A-Za-z/._+-]{0,54}",
    re.ASCII,
)
"""A UUID that fits into a share id of at most 63 characters.

Whatever NVML gives: not every UUID has a prefix, or five groups. It only must not look like an
index, a path that leads upwards, or the stem of memory shares (share_id.py).
"""
SHOWN = 120
"""Characters of an invalid value in a message."""
LARGEST = 2**63
_LONGEST = 1e9
_T = TypeVar("_T")


class UnusableUuidError(ValueError):
    """A UUID that no share id can hold."""


def uuid_of(value: object) -> str:
    """A UUID of a GPU or of a MIG instance, unchanged; UnusableUuidError."""
    uuid = is_a(str, value)
    if not UUID.fullmatch(uuid):
        reason = f"its UUID {uuid[:SHOWN]!r} cannot be part of a share id"
        raise UnusableUuidError(reason)
    return uuid


def pair(value: object) -> tuple[int, int]:
    """Two natural numbers."""
    major, minor = is_a(list, value)
    return number(major), number(minor)


def maybe(value: object) -> int | None:
    """A natural number, or null."""
    return None if value is None else number(value)


def number(value: object) -> int:
    """A natural number."""
    number = is_a(int, value)
    if isinstance(value, bool) or not 0 <= number < LARGEST:
        reason = f"not a natural number: {value!r}"
        raise ValueError(reason)
    return number


def is_a(kind: type[_T], value: object) -> _T:
    """A value of this type."""
    if not isinstance(value, kind):
        reason = f"{kind.__name__} expected, not {str(value)[:SHOWN]!r}"
        raise TypeError(reason)
    return value


def seconds_of(value: object) -> float:
    """A duration in seconds."""
    if isinstance(value, (int, float)) and 0 <= value < _LONGEST:
        return float(value)
    reason = f"not a duration: {str(value)[:SHOWN]!r}"
    raise ValueError(reason)
