"""Checks a parsed document against the schema: every violation, with its path."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches

from attrs import frozen

from sgpud.config.lines import Path
from sgpud.config.schema.kinds import ListOf, Table, ValueType, show, toml_key
from sgpud.config.schema.sections import ROOT, header

_LONGEST_NAME = 40
"""Longer names are not compared with the known ones, and are shortened in messages."""


@frozen
class Violation:
    """An error, or with `warning` something unwise, at one place of a document."""

    path: Path
    text: str
    warning: bool = False


def faults(value: object, kind: ValueType = ROOT, path: Path = ()) -> Iterator[Violation]:
    """Every violation in a value and its contents, in the order of the document."""
    wrong = kind.wrong(value)
    if wrong:
        yield Violation(path, wrong)
    elif isinstance(kind, Table) and isinstance(value, dict):
        yield from _in_table(value, kind, path)
    elif isinstance(kind, ListOf) and isinstance(value, list):
        yield from _in_list(value, kind, path)


def _in_table(value: dict[str, object], table: Table, path: Path) -> Iterator[Violation]:
    """The faults of a table's keys: unknown ones, missing ones, wrong values."""
    known = {key.name: key for key in table.keys}
    for name, inner in value.items():
        if name in known:
            yield from faults(inner, known[name].kind, (*path, name))
        else:
            yield Violation((*path, name), unknown(name, table, path, inner))
    for key in table.keys:
        if key.required and key.name not in value:
            yield Violation((*path, key.name), f"is missing; expected {key.kind.words}")


def _in_list(value: list[object], kind: ListOf, path: Path) -> Iterator[Violation]:
    """The faults of a list's elements, and repeated elements."""
    seen: set[str] = set()
    for number, element in enumerate(value):
        place: Path = (*path, number)
        yield from faults(element, kind.element, place)
        if kind.repeats:
            continue
        marked = element
        if kind.unique:
            place = (*place, kind.unique)
            marked = element.get(kind.unique) if isinstance(element, dict) else None
        if not isinstance(marked, str):
            continue
        if marked in seen:
            yield Violation(place, f"{show(marked)} is listed twice; remove one", not kind.unique)
        seen.add(marked)


def unknown(name: str, table: Table, path: Path, value: object) -> str:
    """The message for an unknown key of a table, with the one that was probably meant."""
    known = [key.name for key in table.keys]
    what = "key" if path or not isinstance(value, dict | list) else "section"
    near = get_close_matches(name, known, 1) if len(name) <= _LONGEST_NAME else []
    if near:
        return f"is an unknown {what}; did you mean {near[0]}?"
    tables = [(section, _table(section.kind)) for section in ROOT.keys]
    if any(table is each for each in (ROOT, *(each for _, each in tables))):
        for section, other in tables:
            if other and name in (key.name for key in other.keys):
                return f"is an unknown key here; it belongs in {header(section)}"
    those = "known keys" if path else "sections"
    return f"is an unknown {what}; {those}: {', '.join(known)}"


def _table(kind: ValueType) -> Table | None:
    """The table of a section, or of each element of a section."""
    inner = kind.element if isinstance(kind, ListOf) else kind
    return inner if isinstance(inner, Table) else None


def key_name(path: Path) -> str:
    """A path as in messages: names with dots, without the indexes of list elements."""
    names = (part for part in path if isinstance(part, str))
    return ".".join(
        toml_key(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…")
        for name in names
    )
