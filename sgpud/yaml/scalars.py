"""The scalars of one line, and what is wrong with a text that is read here."""

from __future__ import annotations

import json

from attrs import frozen

from sgpud.core.errors import SgpudError

Value = dict[str, "Value"] | list["Value"] | str | None

MAX_DEPTH = 32
QUOTED = r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^']|'')*'"
_NULLS = ("~", "null", "")
_SPECIAL = tuple("[]{}&*!|>%@`,?:\"'")


@frozen
class YamlError(SgpudError):
    """A text that is no YAML of the kind that is read here."""

    line: int
    reason: str

    def __str__(self) -> str:
        """The line and the reason."""
        return f"line {self.line}: {self.reason}"


def plain(text: str, number: int) -> str | None:
    """A scalar without quotes; None where it stands for nothing."""
    if text in _NULLS:
        return None
    if text.startswith(_SPECIAL) or ": " in text or text.endswith(":"):
        raise YamlError(number, f"a value of a kind that is not read here: {text[:60]}")
    return text


def unquoted(text: str, number: int) -> str:
    """What stands between quotes."""
    if text.startswith("'"):
        return text[1:-1].replace("''", "'")
    try:
        return str(json.loads(text))
    except ValueError as error:
        raise YamlError(number, f"an escape that is not read here: {text[:60]}") from error
