"""The memory and the utilisation of a GPU as bars of characters. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sgpud.cli.tables import width
from sgpud.core.units import format_size

LEAST = 24
"""Columns of the narrowest bar that says something."""
_MARGIN = "  "


def bars(gpu: Mapping[str, Any], columns: int) -> str:
    """One line of at most so many columns; empty where nothing is measured or no room is left.

    `|` is memory in use, `:` what is granted beyond it.
    """
    found = [bar for bar in (_memory(gpu), _busy(gpu)) if bar]
    room = columns - len(_MARGIN) * len(found)
    if not found or room < LEAST * len(found):
        return ""
    shares = [room] if len(found) == 1 else [room - room // 3, room // 3]
    return "".join(_MARGIN + _bar(*bar, share) for bar, share in zip(found, shares, strict=True))


def _memory(gpu: Mapping[str, Any]) -> tuple[str, float, float, str] | None:
    used, memory = gpu["used"], gpu["memory"]
    if used is None or not memory:
        return None
    held = sum(max(one["used"] or 0, one["granted"] or 0) for one in gpu["containers"])
    # What is in use and of no container comes on top of what they were granted.
    others = max(0, used - sum(one["used"] or 0 for one in gpu["containers"]))
    taken = max(used, held + others)
    text = f"{format_size(used) if used else '0 B'}/{format_size(memory)}"
    if taken > memory:
        text += f" !{format_size(taken - memory)} too much"
    return "MEM", used / memory, taken / memory, text


def _busy(gpu: Mapping[str, Any]) -> tuple[str, float, float, str] | None:
    busy = gpu["utilisation"]
    return None if busy is None else ("BUSY", busy / 100, busy / 100, f"{busy}%")


def _bar(name: str, full: float, taken: float, text: str, columns: int) -> str:
    """`MEM[||||||:::   9 GiB/24 GiB]`: the text stands in the bar, at its right."""
    room = columns - len(name) - 2
    filled = min(room, round(full * room))
    drawn = ("|" * filled + ":" * (min(room, round(taken * room)) - filled)).ljust(room)
    return f"{name}[{drawn[: room - width(text)]}{text}]"
