"""Text that people read: counts with their nouns, and names from outside made harmless."""

from __future__ import annotations

from collections.abc import Mapping


def several(count: int, noun: str) -> str:
    """A number and what it is of: `1 GPU`, `0 GPUs`. Only nouns whose plural is an s more."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


SHARE_STATES = ("held", "free", "withheld", "unhealthy", "draining")
"""Each listed share is in one."""
LIMIT = 8192
"""Characters that are kept of one text: far below the 48 KiB at which journald cuts a line."""


def one_line(text: str) -> str:
    """The text as one line of bounded length, in which nothing but printable characters is left.

    Line ends, terminal escapes, bidirectional controls and lone surrogates show as Python would
    write them, so that a value cannot pass for a line of its own.
    """
    if len(text) > LIMIT:
        text = f"{text[:LIMIT]}... ({len(text) - LIMIT} more characters)"
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def count_shares(counts: Mapping[str, int]) -> str:
    """How many shares are in each state, e.g. `39 held, 25 free` or `3 held, 97 withheld`."""
    refused = counts["withheld"] + counts["unhealthy"]
    return ", ".join(
        f"{counts[state]} {state}"
        for state in SHARE_STATES
        if counts[state] or state == "held" or (state == "free" and not refused)
    )
