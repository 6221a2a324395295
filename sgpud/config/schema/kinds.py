"""The kinds of values that a key can take: plain data, and what each says to a wrong value."""

from __future__ import annotations

import json
from enum import Enum
from typing import Protocol

from attrs import frozen

from sgpud.config.schema.formats import Rule

_SHOWN = 60


class ValueType(Protocol):
    """What a key can be set to."""

    @property
    def words(self) -> str:
        """The kind as it stands after "write" in a message."""

    def wrong(self, value: object) -> str | None:
        """What is wrong with a value that the parser made, and what to write; None if nothing."""


@frozen
class Boolean:
    """True or false."""

    words: str = "true or false"

    def wrong(self, value: object) -> str | None:
        """Wrong unless a TOML boolean."""
        return None if isinstance(value, bool) else mismatch(value, self)


@frozen
class Integer:
    """A whole number in a range, both ends included."""

    low: int
    high: int

    @property
    def words(self) -> str:
        """The kind with its range."""
        return f"a whole number from {self.low} to {self.high}"

    def wrong(self, value: object) -> str | None:
        """Wrong unless a TOML integer in the range; a boolean or `1.0` is none."""
        if isinstance(value, bool) or not isinstance(value, int):
            return mismatch(value, self)
        if self.low <= value <= self.high:
            return None
        return f"{show(value)} is out of range, write {self.words}"


@frozen
class Choice:
    """One of a few words."""

    options: tuple[str, ...]

    @property
    def words(self) -> str:
        """The options, quoted."""
        *most, last = (json.dumps(option) for option in self.options)
        return f"{', '.join(most)} or {last}"

    def wrong(self, value: object) -> str | None:
        """Wrong unless one of the options, letter for letter."""
        if not isinstance(value, str):
            return mismatch(value, self)
        return None if value in self.options else f"is {show(value)}, write {self.words}"


@frozen
class Text:
    """A text that a rule accepts."""

    words: str
    rule: Rule

    def wrong(self, value: object) -> str | None:
        """Wrong unless a TOML string without a fault that the rule finds."""
        if not isinstance(value, str):
            return mismatch(value, self)
        fault = self.rule(value)
        return fault and f"{show(value)} {fault}"


@frozen
class Key:
    """One key of a table, or one table of the file."""

    name: str
    kind: ValueType
    default: object = None
    """As the parser would give it; None for a key whose meaning when left out its doc tells."""
    doc: str = ""
    """What it does, as a person can act on it: a line for each paragraph, `- ` before an item."""
    unit: str = ""
    required: bool = False
    restart: bool = False
    """True if a running daemon takes a new value only when it starts again."""
    example: object = None
    """A value to show for a key without a default."""


def choice(options: type[Enum]) -> Choice:
    """The kind of a key whose options are the values of an enumeration."""
    return Choice(tuple(option.value for option in options))


@frozen
class Table:
    """A table with known keys."""

    keys: tuple[Key, ...]
    words: str

    def wrong(self, value: object) -> str | None:
        """Wrong unless a table; its keys are not looked at."""
        return None if isinstance(value, dict) else mismatch(value, self)


@frozen
class ListOf:
    """A list whose elements are of one kind."""

    element: ValueType
    words: str
    most: int
    """The largest number of elements."""
    unique: str = ""
    """The key in which no two elements may agree, for a list of tables."""
    repeats: bool = False
    """True if an element that comes twice is no matter for a warning here."""

    def wrong(self, value: object) -> str | None:
        """Wrong unless a list that is not too long; its elements are not looked at."""
        if not isinstance(value, list):
            return mismatch(value, self)
        if len(value) > self.most:
            return f"has {len(value)} elements, write at most {self.most}"
        return None


def mismatch(value: object, kind: ValueType) -> str:
    """The message for a value of a wrong type."""
    hint = ""
    if isinstance(kind, Integer | Boolean) and isinstance(value, str):
        hint = ", without quotes"
    elif isinstance(kind, ListOf) and isinstance(kind.element, Text) and isinstance(value, str):
        hint = f": [{show(value)}]"
    return f"is {describe(value)}, write {kind.words}{hint}"


def describe(value: object) -> str:
    """A value of the parser with the name of its type, as a person would say it."""
    match value:
        case bool():
            return show(value)
        case int():
            return f"the number {show(value)}"
        case float():
            return f"the fraction {show(value)}"
        case str():
            return f"the text {show(value)}"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return f"the date or time {show(value)}"


def show(value: object) -> str:
    """A value as TOML writes it, on one line, shortened where it is long."""
    text = toml(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def toml(value: object) -> str:
    """A value as TOML writes it, on one line."""
    match value:
        case bool() | int() | float():
            return str(value).lower()
        case str():
            return "".join(map(_escaped, json.dumps(value, ensure_ascii=False)))
        case list() | tuple():
            return f"[{', '.join(toml(each) for each in value)}]"
        case dict():
            pairs = (f"{toml_key(name)} = {toml(each)}" for name, each in value.items())
            return f"{{{', '.join(pairs)}}}"
        case _:
            return str(value)


def _escaped(char: str) -> str:
    """A character as TOML and a terminal can both take it."""
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 1 << 16 else f"\\U{ord(char):08x}"


def toml_key(name: str) -> str:
    """The name of a key as TOML writes it."""
    plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if plain else toml(name)
