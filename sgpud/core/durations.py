"""Durations as people write them: `30s`, `2m`, `500ms`; inside sgpud always seconds."""

from __future__ import annotations

import re

from attrs import frozen

from sgpud.core.errors import SgpudError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", re.ASCII)
_SHOWN = 40


@frozen
class DurationError(SgpudError):
    """A text that is no duration, and what to write instead."""

    text: str
    reason: str

    def __str__(self) -> str:
        """Say what is wrong and what to write instead."""
        shown = self.text if len(self.text) <= _SHOWN else self.text[:_SHOWN] + "…"
        return f"{shown!r} is not a duration: {self.reason}"


def parse_duration(text: str) -> float:
    """Seconds of `30s`, `2m`, `1.5h`, `500ms` or `0`, to the millisecond.

    DurationError for anything else.
    """
    found = _DURATION.fullmatch(text)
    if not found:
        raise DurationError(text, 'write a number and a unit, such as "30s" or "2m"')
    number, unit = float(found[1]), found[2]
    if not unit and number == 0:
        return 0.0
    if not unit:
        raise DurationError(text, f'the unit is missing: write "{found[1]}s" for seconds')
    if unit not in _UNITS:
        raise DurationError(text, "the units are ms, s, m and h")
    return round(number * _UNITS[unit], 3)


def format_duration(seconds: float) -> str:
    """A number of seconds in the largest unit that makes it a whole number: `30s`, `2m`."""
    for unit, factor in reversed(_UNITS.items()):
        if seconds >= factor and (seconds / factor).is_integer():
            return f"{seconds / factor:.0f}{unit}"
    return f"{seconds!r}s"
