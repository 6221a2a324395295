"""Text in columns for a terminal, truncated and coloured as needed.

A character can take two columns (ideographs, emoji) or none (accents that stand on another).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from enum import Enum

from attrs import frozen

GAP = "  "
ELLIPSIS = "…"
_WIDE = frozenset("WF")
_NONE = frozenset({"Mn", "Me", "Cf"})


class CellStyle(Enum):
    """The ECMA-48 escape sequence of a text; on a terminal only."""

    PLAIN = ""
    HEAD = "1"
    BAD = "31"
    WARN = "33"
    GOOD = "32"
    FAINT = "2"


@frozen
class Cell:
    """A text of a table."""

    text: str
    look: CellStyle = CellStyle.PLAIN
    right: bool = False
    """Whether it stands at the right of its column, as numbers do."""


def width(text: str) -> int:
    """The columns that a printable text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_width, text))


def _width(letter: str) -> int:
    if unicodedata.category(letter) in _NONE:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in _WIDE else 1


def truncate(text: str, columns: int) -> str:
    """The text in at most so many columns; `…` replaces the rest."""
    if width(text) <= columns:
        return text
    kept = ""
    left = columns - width(ELLIPSIS)
    for letter in text:
        left -= _width(letter)
        if left < 0:
            break
        kept += letter
    return kept + ELLIPSIS if columns > 0 else ""


def wrapped(text: str, columns: int) -> list[str]:
    """The text in lines of at most so many columns, the later ones indented by two more; 0: one."""
    if not columns or width(text) <= columns:
        return [text]
    first = text[: len(text) - len(text.lstrip())]
    indent = f"{first}  " if len(first) + 2 < columns else ""
    lines = [first]
    for word in text.split():
        gap = " " if lines[-1].strip() else ""
        if gap and width(lines[-1]) + 1 + width(word) > columns:
            lines.append(indent)
            gap = ""
        lines[-1] += gap
        for letter in word:
            if width(lines[-1]) + _width(letter) > columns:
                lines.append(indent)
            lines[-1] += letter
    return lines


def painted(text: str, look: CellStyle, *, colour: bool) -> str:
    """The text in its look, where colours may be."""
    return f"\x1b[{look.value}m{text}\x1b[0m" if colour and look.value and text else text


def table(
    rows: Sequence[Sequence[Cell]], *, columns: int = 0, least: int = 12, colour: bool = False
) -> list[str]:
    """The rows as aligned lines of at most `columns`; 0: as wide as they are.

    If they are wider, the first column is narrowed, down to `least`, and then the ends of lines are
    truncated. A row of one cell is not aligned with the columns: it is wrapped, not truncated.
    """
    full = [row for row in rows if len(row) > 1]
    widths = [max(map(width, (row[at].text for row in full))) for at in range(len(full[0]))]
    total = sum(widths) + len(GAP) * (len(widths) - 1)
    if columns and total > columns:
        widths[0] = max(min(least, widths[0]), widths[0] - (total - columns))
    lines = []
    for row in rows:
        if len(row) == 1:
            text, look = row[0].text, row[0].look
            lines += [painted(line, look, colour=colour) for line in wrapped(text, columns)]
        else:
            lines.append(_line(row, widths, columns, colour=colour))
    return lines


def _line(row: Sequence[Cell], widths: Sequence[int], columns: int, *, colour: bool) -> str:
    parts: list[str] = []
    used = 0
    last = max((at for at, cell in enumerate(row) if cell.text), default=-1)
    for at, (cell, wide) in enumerate(zip(row, widths, strict=True)):
        if at > last:
            break
        gap = GAP if at else ""
        room = wide if not columns else min(wide, columns - used - len(gap))
        if room <= 0:
            break
        text = truncate(cell.text, room)
        blanks = " " * (room - width(text))
        shown = painted(text, cell.look, colour=colour)
        parts.append(gap + (blanks + shown if cell.right else shown + (blanks * (at < last))))
        used += len(gap) + room
    return "".join(parts)
