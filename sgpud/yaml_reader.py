"""Reads YAML, and JSON, that others wrote: CDI specs, ConfigMaps, other plugins' files.

PyYAML's safe loader, with two differences. Every scalar stays the text that was written (`0`,
`yes` and `0.5.0` alike): who wants a number reads it out of that. And a file is bounded before
anything is built of it: its size, its depth, and the number of its values with every alias counted
in full, so that a few lines of aliases to aliases cost nothing.

Importing PyYAML takes 20 ms: import this module where a YAML file is at hand.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from contextlib import suppress

import yaml
from attrs import Factory, define, frozen

from sgpud.core.errors import SgpudError

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

Value = dict[str, "Value"] | list["Value"] | str | bool | None
"""A boolean comes from JSON only."""

LARGEST = 4 << 20
"""Bytes of a file, at most."""
MOST_VALUES = 100_000
"""Values of a file, at most, with what an alias stands for counted each time."""
MAX_DEPTH = 64
"""Levels of lists and mappings, at most."""
_TAG = "tag:yaml.org,2002:"
_TEXTS = ("str", "int", "float", "bool", "timestamp", "binary", "value", "merge")
_NULLS = ("", "~", "null", "Null", "NULL")


@frozen
class YamlError(SgpudError):
    """A file that is not YAML, or not such as is read here."""

    line: int
    """From 1; 0 where the whole file is meant."""
    reason: str

    def __str__(self) -> str:
        """The line and the reason."""
        return f"line {self.line}: {self.reason}" if self.line else self.reason


def read_documents(raw: bytes) -> list[Value]:
    """Every document of a file; YamlError if it cannot be read.

    UTF-8, with or without a byte-order mark, and UTF-16 with one, as PowerShell writes it.
    """
    if len(raw) > LARGEST:
        raise YamlError(0, f"larger than {LARGEST} bytes")
    text = _text(raw)
    if text.lstrip().startswith(("{", "[")):
        # YAML holds JSON but for a few escapes; what is not JSON may be YAML all the same.
        with suppress(ValueError, RecursionError):
            return [json.loads(text, parse_int=str, parse_float=str)]
    try:
        _Guard().check(yaml.parse(text, Loader=SafeLoader))
        return list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlError(mark.line + 1 if mark else 0, told) from error
    except yaml.YAMLError as error:
        raise YamlError(0, str(error).replace("\n", " ")) from error


def _text(raw: bytes) -> str:
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(0, f"not {error.encoding.upper()} text") from error


class _Loader(SafeLoader):
    """Makes texts, lists and mappings only."""


def _construct_text(loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_Loader.yaml_constructors = {
    **dict.fromkeys((_TAG + name for name in _TEXTS), _construct_text),
    **{
        tag: SafeLoader.yaml_constructors[tag]
        for tag in (_TAG + "null", _TAG + "seq", _TAG + "map", None)
    },
}


@define
class _Open:
    """A list or mapping whose end has not been seen."""

    anchor: str | None
    before: int
    keys: set[str] | None
    """The keys of a mapping so far; None for a list."""
    at_key: bool = False


@define
class _Guard:
    """Goes through the events of a file, and refuses it at the first that is too much."""

    values: int = 0
    sizes: dict[str, int] = Factory(dict)
    """How many values each anchor stands for."""
    open: list[_Open] = Factory(list)

    def check(self, events: Iterator[yaml.Event]) -> None:
        for event in events:
            line = event.start_mark.line + 1 if event.start_mark else 0
            if isinstance(event, yaml.DocumentStartEvent):
                self.sizes.clear()
            elif isinstance(event, yaml.CollectionEndEvent):
                ended = self.open.pop()
                self.anchored(ended.anchor, ended.before)
            elif isinstance(event, yaml.NodeEvent):
                self.node(event, line)
                if self.values > MOST_VALUES:
                    raise YamlError(line, f"more than {MOST_VALUES} values, counting aliases")

    def node(self, event: yaml.NodeEvent, line: int) -> None:
        self.key(event, line)
        before = self.values
        self.values += 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.sizes:
                raise YamlError(line, f"*{event.anchor} refers to nothing complete above it")
            self.values += self.sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            mapping = isinstance(event, yaml.MappingStartEvent)
            self.open.append(_Open(event.anchor, before, set() if mapping else None, mapping))
            if len(self.open) > MAX_DEPTH:
                raise YamlError(line, f"nested more than {MAX_DEPTH} levels deep")
        else:
            self.anchored(event.anchor, before)

    def key(self, event: yaml.NodeEvent, line: int) -> None:
        inside = self.open[-1] if self.open else None
        if inside is None or inside.keys is None:
            return
        inside.at_key, at_key = not inside.at_key, inside.at_key
        if not at_key:
            return
        if not isinstance(event, yaml.ScalarEvent) or (event.implicit[0] and event.value in _NULLS):
            raise YamlError(line, "a key that is not a string")
        if event.value in inside.keys:
            raise YamlError(line, f"duplicate key {event.value}")
        inside.keys.add(event.value)

    def anchored(self, anchor: str | None, before: int) -> None:
        if anchor:
            self.sizes[anchor] = self.values - before
