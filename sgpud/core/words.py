"""Words that people read."""

from __future__ import annotations


def several(count: int, noun: str) -> str:
    """A number and what it is of: `1 GPU`, `0 GPUs`. Only nouns whose plural is an s more."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
