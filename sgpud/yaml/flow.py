"""Lists and mappings in brackets, each whole on one line: `[0, 1]`, `{name: x, replicas: 10}`."""

from __future__ import annotations

import re

from attrs import define

from sgpud.yaml.scalars import MAX_DEPTH, QUOTED, Value, YamlError, plain, unquoted

_BLANKS = re.compile(r" *")
_QUOTED = re.compile(QUOTED)
_PLAIN = re.compile(r"[^,\[\]{}#\"']+")
_KEY = re.compile(rf"(?P<key>[A-Za-z0-9_][^,\[\]{{}}#:\"' ]*|{QUOTED}) *:(?: +|(?=[\[{{]))")
_END = re.compile(r" *(?:#.*)?")


def parse_flow(text: str, number: int) -> Value:
    """The list or mapping that a text is, up to a comment; YamlError for anything else."""
    reader = _Reader(text, number)
    found = reader.value(0)
    if not _END.fullmatch(text, reader.at):
        raise reader.error()
    return found


@define
class _Reader:
    """Goes through the text once."""

    text: str
    number: int
    at: int = 0

    def error(self) -> YamlError:
        return YamlError(self.number, f"a value of a kind that is not read here: {self.text[:60]}")

    def take(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found["key"] if "key" in pattern.groupindex else found[0]

    def closes(self, mark: str) -> bool:
        self.take(_BLANKS)
        if not self.text.startswith(mark, self.at):
            return False
        self.at += 1
        return True

    def value(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise YamlError(self.number, f"nested more than {MAX_DEPTH} deep")
        if self.closes("["):
            return self.items(depth)
        if self.closes("{"):
            return self.mapping(depth)
        quoted = self.take(_QUOTED)
        if quoted is not None:
            return unquoted(quoted, self.number)
        bare = self.take(_PLAIN)
        if bare is None or not bare.strip():
            raise self.error()
        return plain(bare.strip(), self.number)

    def items(self, depth: int) -> list[Value]:
        found: list[Value] = []
        while not self.closes("]"):
            found.append(self.value(depth + 1))
            self.between("]")
        return found

    def mapping(self, depth: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        while not self.closes("}"):
            raw = self.take(_KEY)
            if raw is None:
                raise self.error()
            key = unquoted(raw, self.number) if raw[0] in "\"'" else raw
            if key in found:
                raise YamlError(self.number, f"{key} comes twice")
            found[key] = self.value(depth + 1)
            self.between("}")
        return found

    def between(self, mark: str) -> None:
        """A comma, or the closing mark, which is left for the caller."""
        if not self.closes(",") and not self.text.startswith(mark, self.at):
            raise self.error()
