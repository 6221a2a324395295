"""Where in a TOML text each key stands.

The scanner knows just enough of TOML to find keys. For a valid text it finds the line of every
key and list element; for any other it does what it can and never raises. It runs before the
parser, in linear time and without recursion, and names what would cost the parser too much.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right

from attrs import Factory, define, frozen

Path = tuple[str | int, ...]
"""Names of tables and keys, and numbers of list elements, from the top of the document."""

MAX_DEPTH = 16
"""The longest path: sgpud's own keys have four parts. The parser takes a time that grows with the
square of a key's parts, and a stack that grows with the depth."""
MAX_SCALAR = 100
"""The longest number or date, in characters: converting digits takes time in their square."""

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_REST = re.compile(r"[^\n]*\n?")
_BASIC = r'"(?!"")[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"'
_LITERAL = r"'(?!'')[^'\n]*'"
_LONG_BASIC = r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3,5}'
_LONG_LITERAL = r"'''.*?'{3,5}"
_STRING = re.compile(f"{_LONG_BASIC}|{_LONG_LITERAL}|{_BASIC}|{_LITERAL}", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]*")
_PART = re.compile(f"[A-Za-z0-9_-]+|{_BASIC}|{_LITERAL}")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_DIGITS = tuple("+-0123456789")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


@frozen
class KeyLines:
    """The line of every path of one document, counted from 1."""

    first: dict[Path, int]
    """Where each path stands first."""
    statements: tuple[tuple[int, Path], ...]
    """Every table header and every `key = value` outside of a value, in the order of the text."""
    limit: tuple[int, str] | None
    """The line and the reason where the scan ended because the text is out of all proportion."""

    def of(self, path: Path) -> int:
        """The line of a path, or else of the nearest thing around it; 0 for the document."""
        while path and path not in self.first:
            path = path[:-1]
        return self.first.get(path, 0)

    def of_earlier(self, path: Path, line: int) -> int:
        """The line above `line` on which a path, or what is around it, stands; 0 without one."""
        places = (self.first.get(path[:length], line) for length in range(len(path), 0, -1))
        return next((place for place in places if place < line), 0)

    def statement(self, line: int) -> tuple[int, Path]:
        """The last statement that begins at or before a line, with its line; (0, ()) for none."""
        number = bisect_right(self.statements, line, key=lambda each: each[0])
        return self.statements[number - 1] if number else (0, ())


def locate(text: str) -> KeyLines:
    """Find every key of a TOML text. Never raises."""
    scan = _Scan(text)
    scan.run()
    return KeyLines(scan.first, tuple(scan.statements), scan.limit)


def _unquoted(part: str) -> str:
    """The name that one part of a key stands for."""
    if part.startswith("'"):
        return part[1:-1]
    return _ESCAPE.sub(_unescaped, part[1:-1]) if part.startswith('"') else part


def _unescaped(found: re.Match[str]) -> str:
    """The character that an escape sequence stands for; unknown ones stay as they are."""
    digits = found[1] or found[2] or found[3]
    if digits:
        number = int(digits, 16)
        return chr(number) if number <= sys.maxunicode else found[0]
    return _ESCAPES.get(found[4], found[4])


class _OutOfProportionError(Exception):
    """The text is nested too deeply or holds an endless number; ends the scan."""


@define
class _Frame:
    """An open list or inline table inside a value."""

    path: Path
    close: str
    count: int = 0
    """The number of the list element that is read now."""


@define
class _Scan:
    """One pass over a text. The position only moves forward."""

    text: str
    at: int = 0
    line: int = 1
    counted: int = 0
    """Line breaks before this position are in `line`."""
    table: Path = ()
    arrays: dict[Path, int] = Factory(dict)
    """The number of the last table of each array of tables."""
    first: dict[Path, int] = Factory(dict)
    statements: list[tuple[int, Path]] = Factory(list)
    limit: tuple[int, str] | None = None

    def run(self) -> None:
        """Scan to the end, or to where the text goes out of proportion."""
        try:
            while self._gap() < len(self.text):
                self._statement()
        except _OutOfProportionError as error:
            self.limit = (self._line(), str(error))

    def _line(self) -> int:
        """The line of the current position."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def _take(self, pattern: re.Pattern[str]) -> str:
        """Move past a pattern, which may be absent; what it matched."""
        found = pattern.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found[0]

    def _took(self, token: str) -> bool:
        """Move past a token if it stands here."""
        here = self.text.startswith(token, self.at)
        self.at += len(token) if here else 0
        return here

    def _gap(self) -> int:
        """Move past blanks, line breaks and comments; the new position."""
        self._take(_GAP)
        return self.at

    def _statement(self) -> None:
        """Move past one header or one `key = value`, and whatever else stands on its last line."""
        line = self._line()
        if self._took("[["):
            self.table = self._header(line, repeated=True)
        elif self._took("["):
            self.table = self._header(line, repeated=False)
        else:
            path = self._key(self.table, line)
            self.statements.append((line, path))
            if path != self.table:
                self._value(path)
        self._take(_REST)

    def _header(self, line: int, *, repeated: bool) -> Path:
        """Read the name in a header; the path of the table that it opens."""
        parts = self._parts()
        path: Path = ()
        for number, part in enumerate(parts, 1):
            path = self._note((*path, part), line)
            if repeated and number == len(parts):
                self.arrays[path] = self.arrays.get(path, -1) + 1
            if path in self.arrays:
                path = self._note((*path, self.arrays[path]), line)
        self.statements.append((line, path))
        return path

    def _key(self, path: Path, line: int) -> Path:
        """Read a key below a path; its full path, the same one where no key stands."""
        for part in self._parts():
            path = self._note((*path, part), line)
        return path

    def _parts(self) -> list[str]:
        """Read the parts of a key with the dots between them."""
        parts = []
        self._take(_BLANK)
        while part := self._take(_PART):
            parts.append(_unquoted(part))
            self._take(_BLANK)
            if not self._took("."):
                break
            self._take(_BLANK)
        return parts

    def _note(self, path: Path, line: int) -> Path:
        """Remember where a path stands first."""
        if len(path) > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} deep; sgpud has no key that deep"
            raise _OutOfProportionError(message)
        self.first.setdefault(path, line)
        return path

    def _value(self, path: Path) -> None:
        """Move past `= value`; keys and elements inside it are noted as well."""
        self._take(_BLANK)
        if not self._took("="):
            return
        self._take(_BLANK)
        frames: list[_Frame] = []
        self._open(path, frames)
        while frames and self._gap() < len(self.text):
            frame = frames[-1]
            if self._took(frame.close):
                frames.pop()
            elif self._took(","):
                frame.count += 1
            elif frame.close == "]":
                self._open(self._note((*frame.path, frame.count), self._line()), frames)
            else:
                inner = self._key(frame.path, self._line())
                self._take(_BLANK)
                if inner == frame.path or not self._took("="):
                    return
                self._gap()
                self._open(inner, frames)

    def _open(self, path: Path, frames: list[_Frame]) -> None:
        """Move past a simple value, or into a list or an inline table."""
        if self._took("["):
            frames.append(_Frame(path, "]"))
        elif self._took("{"):
            frames.append(_Frame(path, "}"))
        elif not self._take(_STRING) and not self._scalar():
            self._take(_REST)
            frames.clear()

    def _scalar(self) -> bool:
        """Move past a number, a date or a word; whether there was one."""
        scalar = "" if self.text.startswith(('"', "'"), self.at) else self._take(_SCALAR).strip()
        if len(scalar) > MAX_SCALAR and scalar.startswith(_DIGITS):
            message = f"a number of {len(scalar)} characters, write one that sgpud can use"
            raise _OutOfProportionError(message)
        return scalar != ""
