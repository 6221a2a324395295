"""Reads the part of YAML that machines write: block mappings, block lists and one-line scalars.

nvidia-ctk writes CDI specs so. Every scalar is a text here, as nothing in a spec that sgpud reads
is a number. Whatever else YAML has (anchors, tags, flow and folded values, several documents) is
refused with the line, and never guessed at.
"""

from __future__ import annotations

import json
import re

from attrs import define, frozen

from sgpud.core.errors import SgpudError

Value = dict[str, "Value"] | list["Value"] | str | None

MAX_DEPTH = 32
_QUOTED = r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^']|'')*'"
_SCALAR = re.compile(rf"(?P<text>{_QUOTED})[ ]*(?:#.*)?")
_KEY = re.compile(rf"(?P<key>[A-Za-z0-9_][^\s:#'\"]*|{_QUOTED})[ ]*:(?:[ ]+(?P<rest>.*))?")
_ITEM = re.compile(r"-(?P<gap>[ ]+|$)(?P<rest>.*)")
_COMMENT = re.compile(r"(?:^|[ ])#.*$")
_SPECIAL = tuple("[]{}&*!|>%@`,?:")
_NULLS = ("~", "null", "")


@frozen
class YamlError(SgpudError):
    """A text that is no YAML of the kind that is read here."""

    line: int
    reason: str

    def __str__(self) -> str:
        """The line and the reason."""
        return f"line {self.line}: {self.reason}"


@frozen
class _Line:
    number: int
    indent: int
    text: str


def parse_yaml(text: str) -> Value:
    """The document in a text; YamlError for anything that is not read here."""
    return _Parser(_lines(text)).document()


def _lines(text: str) -> list[_Line]:
    lines: list[_Line] = []
    for number, raw in enumerate(text.split("\n"), 1):
        content = raw.rstrip(" \r")
        bare = content.lstrip(" ")
        if bare.startswith("\t"):
            raise YamlError(number, "a tab in the indentation")
        if not bare or bare.startswith("#") or (content == "---" and not lines):
            continue
        if content == "...":
            break
        if content.startswith(("---", "%")):
            raise YamlError(number, "only one plain document is read")
        lines.append(_Line(number, len(content) - len(bare), bare))
    return lines


@define
class _Parser:
    """Goes through the lines once; a list item's rest is put back as a line of its own."""

    lines: list[_Line]
    at: int = 0

    def document(self) -> Value:
        if not self.lines:
            return None
        value = self.block(self.lines[0].indent, 0)
        if self.at < len(self.lines):
            raise YamlError(self.lines[self.at].number, "indented unlike what stands above")
        return value

    def here(self) -> _Line | None:
        return self.lines[self.at] if self.at < len(self.lines) else None

    def block(self, indent: int, depth: int) -> Value:
        line = self.lines[self.at]
        if depth > MAX_DEPTH:
            raise YamlError(line.number, f"nested more than {MAX_DEPTH} deep")
        if _ITEM.fullmatch(line.text):
            return self.items(indent, depth)
        if _KEY.fullmatch(line.text):
            return self.mapping(indent, depth)
        self.at += 1
        return _scalar(line.text, line.number)

    def items(self, indent: int, depth: int) -> list[Value]:
        found: list[Value] = []
        while (line := self.here()) and line.indent == indent:
            item = _ITEM.fullmatch(line.text)
            if not item:
                break
            if item["rest"] and not item["rest"].startswith("#"):
                inner = indent + 1 + len(item["gap"])
                self.lines[self.at] = _Line(line.number, inner, item["rest"])
                found.append(self.block(inner, depth + 1))
            else:
                self.at += 1
                found.append(self.nested(indent + 1, depth))
        return found

    def mapping(self, indent: int, depth: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        while (line := self.here()) and line.indent == indent:
            entry = _KEY.fullmatch(line.text)
            if not entry:
                break
            key = str(_scalar(entry["key"], line.number))
            if key in found:
                raise YamlError(line.number, f"{key} comes twice")
            self.at += 1
            rest = entry["rest"] or "#"
            empty = rest.startswith("#")
            found[key] = self.below_key(indent, depth) if empty else _scalar(rest, line.number)
        return found

    def below_key(self, indent: int, depth: int) -> Value:
        line = self.here()
        if line and line.indent == indent and _ITEM.fullmatch(line.text):
            return self.items(indent, depth + 1)
        return self.nested(indent + 1, depth)

    def nested(self, least: int, depth: int) -> Value:
        line = self.here()
        return self.block(line.indent, depth + 1) if line and line.indent >= least else None


def _scalar(text: str, number: int) -> Value:
    quoted = _SCALAR.fullmatch(text)
    if quoted:
        return _unquoted(quoted["text"], number)
    plain = _COMMENT.sub("", text).rstrip()
    if plain in _NULLS:
        return None
    if plain in ("[]", "{}"):
        return [] if plain == "[]" else {}
    if plain.startswith((*_SPECIAL, '"', "'")) or ": " in plain or plain.endswith(":"):
        raise YamlError(number, f"a value of a kind that is not read here: {plain[:60]}")
    return plain


def _unquoted(text: str, number: int) -> str:
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    try:
        return str(json.loads(text))
    except ValueError as error:
        raise YamlError(number, f"an escape that is not read here: {text[:60]}") from error
