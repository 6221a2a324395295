"""Sizes and durations as people write them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import ClassVar

from attrs import frozen

from sgpud.core.errors import SgpudError

_SIZE_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,10}))? ?([A-Za-z]*)", re.ASCII)
_PERCENT = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_WHOLE = 100
_SHOWN = 40
LARGEST = 2**63 - 1
"""The largest size in bytes: a signed 64-bit number."""


@frozen
class UnitError(SgpudError):
    """A string that is not an amount, and what to write instead."""

    amount: ClassVar[str]
    text: str
    reason: str

    def __str__(self) -> str:
        """Say what is wrong and what to write instead."""
        shown = self.text if len(self.text) <= _SHOWN else self.text[:_SHOWN] + "…"
        return f"{shown!r} is not a {self.amount}: {self.reason}"


class SizeError(UnitError):
    """A string that is not a size, and what to write instead."""

    amount = "size of memory"


def parse_size(text: str) -> int:
    """Bytes of `40GiB`, `1.5 GiB`, `512MiB` or `0`; SizeError for anything else.

    The units are KiB, MiB, GiB and TiB, spelled like that: a decimal GB is 7 % less, and a plain
    number is ambiguous. Only 0 needs no unit. A fraction is rounded down to whole bytes, so that
    the output of `format_size` can be parsed.
    """
    found = _SIZE.fullmatch(text)
    if not found:
        raise SizeError(text, 'write a number and a unit, such as "40GiB" or "512MiB"')
    whole, fraction, unit = found[1], found[2] or "", found[3]
    if not unit and int(whole + fraction) == 0:
        return 0
    if unit not in _SIZE_UNITS:
        raise SizeError(text, _wrong_unit(whole, unit))
    tenths: int = 10 ** len(fraction)
    size, rest = divmod(int(whole + fraction) * _SIZE_UNITS[unit], tenths)
    if rest and not size:
        raise SizeError(text, "it is less than a byte: use a larger number")
    if size > LARGEST:
        raise SizeError(text, "it is larger than 8388607TiB")
    return size


def format_size(size: int) -> str:
    """A size in bytes as people read it: `40GiB`, `39.6GiB`, `0`.

    In the largest unit that it reaches, rounded to one decimal place.
    """
    if size == 0:
        return "0"
    reached = [unit for unit, factor in _SIZE_UNITS.items() if size >= factor]
    if not reached:
        return f"{size}B"
    whole, rest = divmod(size, _SIZE_UNITS[reached[-1]])
    return (
        f"{size / _SIZE_UNITS[reached[-1]]:.1f}{reached[-1]}" if rest else f"{whole}{reached[-1]}"
    )


def exact_size(size: int) -> str:
    """A size from `parse_size` as text from which `parse_size` returns the same size."""
    for unit, factor in reversed(_SIZE_UNITS.items()):
        if size and not size % factor:
            return f"{size // factor}{unit}"
    return f"{Decimal(size) / 1024:f}KiB" if size else "0"


@frozen
class Amount:
    """A part of a GPU's memory: so many bytes, or so many percent."""

    size: int = 0
    """Bytes, unless `percent` is set."""
    percent: float = 0.0

    def of(self, total: int) -> int:
        """The amount in bytes for a GPU with `total` bytes."""
        return int(total * self.percent / 100) if self.percent else self.size

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.percent:g}%" if self.percent else exact_size(self.size)


def parse_amount(text: str) -> Amount:
    """`5%`, or a size for `parse_size`; SizeError for anything else."""
    if not text.endswith("%"):
        return Amount(parse_size(text))
    number = text[:-1].rstrip(" ")
    if not _PERCENT.fullmatch(number):
        raise SizeError(text, 'write a percentage such as "5%" or "2.5%"')
    if float(number) > _WHOLE:
        raise SizeError(text, "it is more than 100 %")
    return Amount(percent=round(float(number), 3))


def _wrong_unit(number: str, unit: str) -> str:
    if not unit:
        return f'the unit is missing: write "{number}GiB" or "{number}MiB"'
    meant = [name for name in _SIZE_UNITS if unit.upper() in (name[0], name[0] + "B", name.upper())]
    if meant:
        return f'write the unit as "{meant[0]}" (1024 to the power, as NVML counts)'
    return "the units are KiB, MiB, GiB and TiB"


_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", re.ASCII)


class DurationError(UnitError):
    """A string that is not a duration, and what to write instead."""

    amount = "duration"


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
    if unit not in _DURATION_UNITS:
        raise DurationError(text, "the units are ms, s, m and h")
    return round(number * _DURATION_UNITS[unit], 3)


def format_duration(seconds: float) -> str:
    """A number of seconds in the largest unit that makes it a whole number: `30s`, `2m`."""
    for unit, factor in reversed(_DURATION_UNITS.items()):
        if seconds >= factor and (seconds / factor).is_integer():
            return f"{seconds / factor:.0f}{unit}"
    return f"{seconds!r}s"
