"""A draft as the text of an sgpud.toml, with the differences at its head. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from sgpud.cli.convert.draft import Draft
from sgpud.config.problems import printable
from sgpud.config.schema.kinds import toml

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
