"""Reads the part of YAML that machines and plain manifests write.

nvidia-ctk writes CDI specs so, and a ConfigMap or a plugin's configuration is not much more: block
mappings, block lists, scalars of one line, `[lists]` and `{mappings}` on one line, and texts after
`|`. Every scalar is a text here: who wants a number reads it out of that. Whatever else YAML has
(anchors, tags, folded texts, several documents) is refused with the line, and never guessed at.
"""

from __future__ import annotations

import re

from attrs import define, frozen

from sgpud.yaml.flow import parse_flow
from sgpud.yaml.scalars import MAX_DEPTH, QUOTED, Value, YamlError, plain, unquoted

_SCALAR = re.compile(rf"(?P<text>{QUOTED})[ ]*(?:#.*)?")
_KEY = re.compile(rf"(?P<key>[A-Za-z0-9_][^\s:#'\"]*|{QUOTED})[ ]*:(?:[ ]+(?P<rest>.*))?")
_ITEM = re.compile(r"-(?P<gap>[ ]+|$)(?P<rest>.*)")
_LITERAL = re.compile(r"[|](?P<strip>-?)[ ]*(?:(?<=[ ])#.*)?")
_COMMENT = re.compile(r"(?:^|[ ])#.*$")


@frozen
class _Line:
    number: int
    indent: int
    text: str


def parse_yaml(text: str) -> Value:
    """The document in a text; YamlError for anything that is not read here."""
    return _Parser(_lines(text), text.split("\n")).document()


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
    raw: list[str]
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
            literal = _LITERAL.fullmatch(rest)
            if rest.startswith("#"):
                found[key] = self.below_key(indent, depth)
            elif literal:
                text = self.literal(line.number, indent)
                found[key] = text.rstrip("\n") if literal["strip"] else text
            else:
                found[key] = _scalar(rest, line.number)
        return found

    def literal(self, number: int, indent: int) -> str:
        """The lines below line `number` that are indented more than it is, as they stand."""
        taken: list[str] = []
        for raw in self.raw[number:]:
            line = raw.rstrip("\r")
            if line.strip(" ") and len(line) - len(line.lstrip(" ")) <= indent:
                break
            taken.append(line)
        while taken and not taken[-1].strip(" "):
            taken.pop()
        while (here := self.here()) and here.number <= number + len(taken):
            self.at += 1
        full = [line for line in taken if line.strip(" ")]
        margin = len(full[0]) - len(full[0].lstrip(" ")) if full else 0
        for below, line in enumerate(taken, number + 1):
            if line[:margin].strip(" "):
                raise YamlError(below, "indented less than the text that it is in")
        return "".join(f"{line[margin:]}\n" for line in taken)

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
        return unquoted(quoted["text"], number)
    if text.startswith(("[", "{")):
        return parse_flow(text, number)
    return plain(_COMMENT.sub("", text).rstrip(), number)
