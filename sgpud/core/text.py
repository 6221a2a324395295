"""Text that people read: counts with their nouns, and names from outside made harmless."""

from __future__ import annotations


def several(count: int, noun: str) -> str:
    """A number and what it is of: `1 GPU`, `0 GPUs`. Only nouns whose plural is an s more."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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
