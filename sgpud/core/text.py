"""Text for people: counts with their nouns, and strings from outside made safe to print."""

from __future__ import annotations

from collections.abc import Mapping


def several(count: int, noun: str) -> str:
    """A number with its noun: `1 GPU`, `0 GPUs`. For nouns with a plural in s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


SHARE_STATES = ("held", "free", "withheld", "unhealthy", "draining")
"""Each listed share is in exactly one."""
LIMIT = 8192
"""Characters of one text at most: far below the 48 KiB at which journald splits a line."""


def one_line(text: str) -> str:
    """The text as one line of bounded length that contains only printable characters.

    Line ends, terminal escapes, bidirectional controls and lone surrogates are escaped as in
    Python, so that a value cannot forge a line.
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
