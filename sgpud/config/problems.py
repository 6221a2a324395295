"""The problems of a configuration: what, where, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from sgpud.core.errors import SgpudError


@frozen
class Problem:
    """One error, or with `warning` something that is only unwise."""

    file: str
    """The file as the caller named it, or `--set` for the command line."""
    line: int
    """Counted from 1; 0 if the problem is not in one line."""
    key: str
    """`section.key`, or empty for the file as a whole."""
    text: str
    """What is wrong and what to write instead, in one line."""
    warning: bool = False
    column: int = 0
    """Counted from 1, in characters; 0 unless it is a syntax error."""

    def __str__(self) -> str:
        """`FILE:LINE:COLUMN: key: text`, without unknown parts; always one line."""
        known = (self.file, self.line, self.column)
        place = ":".join(str(each) for each in known if each)
        parts = (place, "warning" if self.warning else "", self.key, self.text)
        return printable(": ".join(part for part in parts if part))


class ConfigError(SgpudError):
    """The configuration cannot be used; carries every problem found, warnings included."""

    exit_status = 78
    """EX_CONFIG of sysexits.h."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Carry the problems, errors first, each once: elements of a list can have the same."""
        self.problems = tuple(dict.fromkeys(sorted(problems, key=lambda each: each.warning)))
        super().__init__(self.problems)

    def __str__(self) -> str:
        """Every problem on a line of its own."""
        return render(self.problems)


def render(problems: Iterable[Problem]) -> str:
    """One line for each problem, errors before warnings, otherwise in the order given."""
    return "\n".join(str(each) for each in sorted(problems, key=lambda each: each.warning))


def printable(text: str) -> str:
    """The text with everything escaped that could break a line, a terminal or an encoding."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
