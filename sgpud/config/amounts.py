"""The rules for sizes of memory, parts of it, and durations, in the manner of `names`."""

from __future__ import annotations

from sgpud.config.names import Rule
from sgpud.core.durations import DurationError, format_duration, parse_duration
from sgpud.core.sizes import SizeError, format_size, parse_amount, parse_size


def size(least: int = 0) -> Rule:
    """A size of memory: 0, or at least so many bytes."""

    def rule(text: str) -> str | None:
        try:
            found = parse_size(text)
        except SizeError as error:
            return f"is no size of memory: {error.reason}"
        if 0 < found < least:
            return f'is too small, write at least "{format_size(least)}", or "0"'
        return None

    return rule


def amount(text: str) -> str | None:
    """A part of a GPU's memory: a percentage, or a size."""
    try:
        parse_amount(text)
    except SizeError as error:
        return f"is no amount of memory: {error.reason}"
    return None


def amount_or_nothing(text: str) -> str | None:
    """An amount, or an empty text."""
    return amount(text) if text else None


def duration(least: float, most: float) -> Rule:
    """A duration in a range, in seconds."""

    def rule(text: str) -> str | None:
        try:
            found = parse_duration(text)
        except DurationError as error:
            return f"is no duration: {error.reason}"
        if least <= found <= most:
            return None
        return f'is out of range, write "{format_duration(least)}" to "{format_duration(most)}"'

    return rule
