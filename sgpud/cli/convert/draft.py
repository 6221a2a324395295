"""A configuration during conversion: sections, rules and notes; and its text. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import Factory, define, frozen

from sgpud.config.problems import printable
from sgpud.config.schema.kinds import toml
from sgpud.core.errors import SgpudError

MOST_SHARES = 10_000
"""The largest `duplication_factor`."""
_MOST_DIGITS = 9


@frozen
class ConvertError(SgpudError):
    """A file that is not a configuration of a known plugin."""

    file: str
    reason: str

    def __str__(self) -> str:
        """The file and what to do."""
        return f"{self.file}: {self.reason}"


@define
class Draft:
    """An sgpud.toml in the making."""

    source: str
    """The plugin whose configuration it was, for people."""
    sections: dict[str, dict[str, Any]] = Factory(dict)
    rules: list[dict[str, Any]] = Factory(list)
    notes: list[str] = Factory(list)
    """The differences, each on one line that starts with the place in the file."""

    def set(self, section: str, key: str, value: object) -> None:
        """Write a key."""
        self.sections.setdefault(section, {})[key] = value

    def note(self, place: str, text: str) -> None:
        """Note what was ignored, or means something else."""
        self.notes.append(f"{place}: {text}")


def table(value: object, place: str, draft: Draft) -> Mapping[str, Any]:
    """A mapping; an empty one, with a note, for anything else."""
    if isinstance(value, Mapping):
        return value
    if value is not None:
        draft.note(place, "is not a mapping and was ignored")
    return {}


def listed(value: object, place: str, draft: Draft) -> list[Any]:
    """A list; an empty one, with a note, for anything else."""
    if isinstance(value, list):
        return value
    if value is not None:
        draft.note(place, "is not a list and was ignored")
    return []


def whole(value: object) -> int | None:
    """A whole number that is not negative, however it is written; None for anything else."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def shares(value: object, place: str, draft: Draft) -> int | None:
    """How many shares a GPU has: 1 to MOST_SHARES; None, with a note, if it is not a number."""
    count = whole(value)
    if not count:
        draft.note(place, f"is {value!r}, not a number of shares, and was ignored")
        return None
    if count > MOST_SHARES:
        draft.note(place, f"is {count}; {MOST_SHARES} is the maximum and was used")
    return min(count, MOST_SHARES)


def truth(value: object) -> bool:
    """Whether a flag is set, as YAML writes it."""
    return str(value).lower() == "true"


_WIDTH = 98


def document(draft: Draft) -> str:
    """The text; the caller checks that it is valid."""
    lines = [*_head(draft)]
    for name, keys in draft.sections.items():
        lines += ["", f"[{name}]", *_keys(keys)]
    for rule in draft.rules:
        lines += ["", "[[gpu]]", *_keys(rule)]
    return "\n".join(lines) + "\n"


def _head(draft: Draft) -> Iterator[str]:
    yield f"# Converted from the configuration of {draft.source}."
    yield "# Remove that plugin from the node before sgpud starts there: a resource has one plugin."
    if not draft.notes:
        yield "# Everything was converted."
        return
    yield "#"
    yield "# Differences:"
    for note in draft.notes:
        text = printable(note)
        yield from textwrap.wrap(text, _WIDTH, initial_indent="# - ", subsequent_indent="#   ")


def _keys(keys: Mapping[str, Any]) -> Iterator[str]:
    return (f"{name} = {toml(value)}" for name, value in keys.items())
