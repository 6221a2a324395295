"""The types of values: plain data, and the message for each wrong value."""

from __future__ import annotations

import json
from enum import Enum
from typing import Protocol

from attrs import frozen

from sgpud.config.schema.formats import Rule

_SHOWN = 60


class ValueType(Protocol):
    """The type of a key."""

    @property
    def words(self) -> str:
        """The type as messages and the reference name it."""

    def wrong(self, value: object) -> str | None:
        """What is wrong with a parsed value, and what is expected; None if nothing."""


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
        return f"integer from {self.low} to {self.high}"

    def wrong(self, value: object) -> str | None:
        """Wrong unless a TOML integer in the range; a boolean or `1.0` is none."""
        if isinstance(value, bool) or not isinstance(value, int):
            return mismatch(value, self)
        if self.low <= value <= self.high:
            return None
        return f"{show(value)} is out of range; expected {self.words}"


@frozen
class Number:
    """A number in a range, both ends included."""

    low: float
    high: float

    @property
    def words(self) -> str:
        """The kind with its range."""
        return f"number from {self.low:g} to {self.high:g}"

    def wrong(self, value: object) -> str | None:
        """Wrong unless a TOML integer or float in the range."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return mismatch(value, self)
        if self.low <= value <= self.high:
            return None
        return f"{show(value)} is out of range; expected {self.words}"


@frozen
class Choice:
    """One of a few strings."""

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
        return None if value in self.options else f"is {show(value)}; expected {self.words}"


@frozen
class Text:
    """A string that a rule accepts."""

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
    """As the parser returns it; None for a key whose doc says what its absence means."""
    doc: str = ""
    """What it does, for an operator: one line per paragraph, `- ` before a list item."""
    unit: str = ""
    required: bool = False
    restart: bool = False
    """True if a running daemon uses a new value only after a restart."""
    example: object = None
    """An example for a key without a default."""


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
    """True if repeated elements need no warning here."""

    def wrong(self, value: object) -> str | None:
        """Wrong unless a list that is not too long; its elements are not looked at."""
        if not isinstance(value, list):
            return mismatch(value, self)
        if len(value) > self.most:
            return f"has {len(value)} elements, at most {self.most} are allowed"
        return None


def mismatch(value: object, kind: ValueType) -> str:
    """The message for a value of a wrong type."""
    hint = ""
    if isinstance(kind, Integer | Boolean) and isinstance(value, str):
        hint = ", without quotes"
    elif isinstance(kind, ListOf) and isinstance(kind.element, Text) and isinstance(value, str):
        hint = f": [{show(value)}]"
    return f"is {describe(value)}; expected {kind.words}{hint}"


def describe(value: object) -> str:
    """A parsed value with the name of its type."""
    match value:
        case bool():
            return show(value)
        case int():
            return f"the number {show(value)}"
        case float():
            return f"the float {show(value)}"
        case str():
            return f"the string {show(value)}"
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
