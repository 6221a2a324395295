"""From a text, or from one `--set`, to a parsed document that knows where its keys stand."""

from __future__ import annotations

import pathlib
import re
import sys
from typing import Any

from attrs import frozen

from sgpud.config.lines import KeyLines, Path, locate
from sgpud.config.problems import ConfigError, Problem
from sgpud.config.schema.check import key_name
from sgpud.config.schema.kinds import ListOf, show
from sgpud.config.schema.sections import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 256 * 1024
"""The largest configuration that is read."""
OVERRIDE = "--set"
"""The file name in messages about the command line."""

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_BARE_WORD = re.compile(r"[^=#\"']*=\s*(?!(?:true|false)\b)[A-Za-z_/*]")
_TWICE = ("Cannot overwrite", "Cannot declare", "Cannot mutate")
_MARKS = ((b"\xef\xbb\xbf", "UTF-8"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
_QUOTED = tuple("\"'[{")


@frozen
class ConfigSource:
    """One document of the parser with the places of its keys."""

    file: str
    document: dict[str, Any]
    lines: KeyLines | None
    """None for the command line, which has no lines."""

    def line(self, path: Path) -> int:
        """The line of a path, or of what is around it; 0 without lines."""
        return self.lines.of(path) if self.lines else 0

    def has(self, path: Path) -> bool:
        """Whether a path is set here."""
        value: Any = self.document
        try:
            for part in path:
                value = value[part]
        except (KeyError, IndexError, TypeError):
            return False
        return True


def file_text(path: pathlib.Path) -> bytes:
    """What a file or a pipe has to say, MAX_BYTES at most; ConfigError where it cannot be read."""
    try:
        with path.open("rb") as opened:
            text = opened.read(MAX_BYTES + 1)
    except OSError as error:
        problem = Problem(str(path), 0, "", f"cannot be read: {error.strerror}")
        raise ConfigError([problem]) from error
    if len(text) > MAX_BYTES:
        raise too_large(str(path), path.stat().st_size)
    return text


def read_text(text: str | bytes, file: str) -> ConfigSource:
    """Parse a configuration file's text. Errors: ConfigError with one problem."""
    decoded = _decoded(text, file)
    lines = locate(decoded.replace("\r\n", "\n"))
    if lines.limit:
        line, reason = lines.limit
        raise ConfigError([Problem(file, line, "", reason)])
    try:
        document = tomllib.loads(decoded)
    except (ValueError, RecursionError) as error:
        raise ConfigError([_syntax(str(error), decoded, lines, file)]) from error
    return ConfigSource(file, document, lines)


def read_override(text: str) -> ConfigSource:
    """Parse one `section.key=VALUE` of the command line. Errors: ConfigError with one problem.

    VALUE is TOML; what is no TOML and does not look as if it should be is taken as a text.
    """
    name, equals, value = (part.strip() for part in text.partition("="))
    section, _, key = name.partition(".")
    if not equals or not section or not key:
        raise _refused("", f"{show(text)} is not of the form section.key=VALUE")
    for known in ROOT.keys:
        if known.name == section and isinstance(known.kind, ListOf):
            raise _refused(name, f"rules can only be set in the file, in [[{section}]] tables")
    return ConfigSource(OVERRIDE, {section: {key: _value(value, name)}}, None)


def _value(text: str, name: str) -> object:
    """The value that a word of the command line stands for."""
    try:
        document = read_text(f"value = {text}", OVERRIDE).document
    except ConfigError as error:
        if text.startswith(_QUOTED) or not text.isprintable():
            message = f"{show(text)} is not a TOML value; lists are written as [1, 2]"
            raise _refused(name, message) from error
        return text
    if document.keys() != {"value"}:
        raise _refused(name, "is more than one value; use --set once per key")
    return document["value"]


def _refused(key: str, text: str) -> ConfigError:
    """The error for a word of the command line."""
    return ConfigError([Problem(OVERRIDE, 0, key, text)])


def _decoded(text: str | bytes, file: str) -> str:
    """The text as a string that can be written as UTF-8, and is not too large."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if len(raw) > MAX_BYTES:
        raise too_large(file, len(raw))
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            message = f"begins with the byte order mark of {encoding}; save it as UTF-8 without one"
            raise ConfigError([Problem(file, 1, "", message)])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 (byte 0x{raw[error.start]:02x}); save it as UTF-8"
        raise ConfigError([Problem(file, line, "", message)]) from error


def too_large(file: str, size: int) -> ConfigError:
    """The error for a configuration that is too large."""
    message = f"is {size} bytes long, at most {MAX_BYTES} are allowed"
    return ConfigError([Problem(file, 0, "", message)])


def _syntax(message: str, text: str, lines: KeyLines, file: str) -> Problem:
    """The problem for what the parser says, on the line where a person has to look."""
    found = _AT.search(message)
    if found is None:
        return Problem(file, 0, "", f"is not TOML: {message}")
    reason = message[: found.start()]
    last = text.count("\n") + 1
    line = int(found[1] or last)
    start, path = lines.statement(line)
    if reason.startswith(_TWICE):
        first = lines.of_earlier(path, start)
        where = f", first on line {first}" if first else ""
        return Problem(file, start, key_name(path), f"is set twice{where}: remove one")
    if _BARE_WORD.match(text.split("\n")[line - 1]):
        reason += "; strings need quotes, true and false are lower-case"
    if not found[1]:
        return Problem(file, start or last, "", f"is not TOML: {reason} before the file ends")
    since = f" (this statement begins on line {start})" if 0 < start < line else ""
    return Problem(file, line, "", f"is not TOML: {reason}{since}", column=int(found[2]))
