"""Sizes of memory: what is written is what is meant, and nothing else is taken."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.core.units import LARGEST, SizeError, format_size, parse_size

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("0GiB", 0),
        ("1KiB", 1024),
        ("512MiB", 512 * 2**20),
        ("40GiB", 40 * 2**30),
        ("40 GiB", 40 * 2**30),
        ("1.5GiB", 3 * 2**29),
        ("0.5TiB", 2**39),
        ("7.4GiB", 74 * 2**30 // 10),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("40GB", '"GiB"'),
        ("40G", '"GiB"'),
        ("40gib", '"GiB"'),
        ("512mb", '"MiB"'),
        ("40", '"40GiB"'),
        ("40XiB", "KiB, MiB, GiB and TiB"),
        ("", "write a number and a unit"),
        ("GiB", "write a number and a unit"),
        ("-1GiB", "write a number and a unit"),
        ("1e3GiB", "write a number and a unit"),
        ("0.0001KiB", "larger number"),
        ("99999999TiB", "larger than"),
        ("٤GiB", "write a number and a unit"),
        ("9" * 1000, "write a number and a unit"),
    ],
)
def test_an_invalid_size_is_refused_with_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(SizeError) as caught:
        parse_size(text)
    assert hint in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.integers(0, 8000), st.sampled_from(sorted(UNITS)))
def test_a_whole_number_of_any_unit_is_read(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * UNITS[unit]


@given(st.integers(1, 1023), st.sampled_from(sorted(UNITS)))
def test_whole_units_below_the_next_are_exact(number: int, unit: str) -> None:
    size = number * UNITS[unit]
    assert format_size(size) == f"{number}{unit}"
    assert parse_size(format_size(size)) == size


@given(st.integers(1024, LARGEST))
def test_any_size_is_shown_within_a_rounding(size: int) -> None:
    text = format_size(size)
    number, unit = float(text[:-3]), UNITS[text[-3:]]
    assert abs(number * unit - size) <= 0.051 * unit


@given(st.text())
@example("1.GiB")
@example(".5GiB")
@example("1.999999999KiB")
def test_any_text_is_a_size_or_a_size_error(text: str) -> None:
    try:
        size = parse_size(text)
    except SizeError:
        return
    assert 0 <= size <= LARGEST


def test_small_sizes_are_bytes() -> None:
    assert [format_size(size) for size in (0, 1, 1023)] == ["0", "1B", "1023B"]
