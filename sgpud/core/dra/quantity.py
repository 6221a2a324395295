"""Kubernetes quantities: `40Gi`, `1431Mi`, `1k`, `500m`. The API server rewrites them."""

from __future__ import annotations

import re
from fractions import Fraction

from sgpud.core.errors import SgpudError

_QUANTITY = re.compile(
    r"([+-]?)([0-9]{1,20}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})"
    r"(?:([KMGTPE]i|[numkMGTPE]|)|[eE]([+-]?[0-9]{1,2}))",
    re.ASCII,
)
_BINARY = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SHOWN = 40


class QuantityError(SgpudError):
    """A text that is not a Kubernetes quantity."""

    def __init__(self, text: object) -> None:
        """`text`: what was read instead."""
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        """The text, and what a quantity looks like."""
        return f"{str(self.text)[:_SHOWN]!r} is not a quantity such as 12Gi or 3"


def parse_quantity(text: object) -> Fraction:
    """The exact number that a quantity stands for; QuantityError for anything else.

    Two texts of the same number are the same quantity: the API server answers `40960Mi` with
    `40Gi`, so that what was sent and what is stored are compared as numbers.
    """
    found = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise QuantityError(text)
    sign, number, suffix, exponent = found.groups()
    value = Fraction(number if not number.endswith(".") else number[:-1])
    if suffix in _BINARY:
        value *= 1024 ** (_BINARY.index(suffix) + 1)
    else:
        value *= Fraction(10) ** (int(exponent) if exponent else _DECIMAL[suffix or ""])
    return -value if sign == "-" else value


def whole_quantity(text: object) -> int:
    """The same as a whole number, rounded up as Kubernetes does it."""
    value = parse_quantity(text)
    return -((-value.numerator) // value.denominator)


def format_bytes(size: int) -> str:
    """Bytes in the largest binary unit that divides them, as the API server would write them."""
    for power in range(len(_BINARY), 0, -1):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{_BINARY[power - 1]}"
    return str(size)
