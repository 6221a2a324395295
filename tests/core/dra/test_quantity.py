"""Quantities: as Kubernetes reads and rewrites them, compared as numbers."""

from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.dra.quantity import QuantityError, format_bytes, parse_quantity, whole_quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("12Gi", 12 * 2**30),
        ("-20Gi", -20 * 2**30),
        ("1431Mi", 1431 * 2**20),
        ("1500M", 1_500_000_000),
        ("1k", 1000),
        ("10.0", 10),
        ("1.", 1),
        (".5Gi", 2**29),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("2500m", Fraction(5, 2)),
    ],
)
def test_a_quantity_is_the_number_it_stands_for(text: str, value: Fraction) -> None:
    assert parse_quantity(text) == value


def test_one_number_may_be_written_in_several_ways() -> None:
    assert parse_quantity("40960Mi") == parse_quantity("40Gi") == parse_quantity("42949672960")


def test_fractions_are_rounded_up() -> None:
    assert whole_quantity("2500m") == 3
    assert whole_quantity("-2500m") == -2


@pytest.mark.parametrize(
    "text", ["", "Gi", "1 Gi", "1GiB", "0x10", "1e", "1.2.3", "²", None, 3, b"1"]
)
def test_anything_else_is_an_error_of_ours(text: object) -> None:
    with pytest.raises(QuantityError, match="is not a quantity such as"):
        parse_quantity(text)


@given(st.text(max_size=12))
def test_no_text_makes_another_error(text: str) -> None:
    with suppress(QuantityError):
        parse_quantity(text)


@given(st.integers(0, 2**62))
def test_bytes_round_trip(size: int) -> None:
    assert parse_quantity(format_bytes(size)) == size


def test_bytes_are_written_in_the_largest_unit_that_divides_them() -> None:
    assert format_bytes(40 * 2**30) == "40Gi"
    assert format_bytes(1431 * 2**20) == "1431Mi"
    assert format_bytes(1001) == "1001"
