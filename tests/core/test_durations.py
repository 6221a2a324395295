import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.units import DurationError, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("2m", 120), ("1.5h", 5400), ("500ms", 0.5), ("0", 0), ("0 s", 0), ("5 m", 300)],
)
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("30", 'write "30s"'),
        ("30S", "the units are ms, s, m and h"),
        ("30 seconds", "the units are ms, s, m and h"),
        ("", "write a number and a unit"),
        ("-5s", "write a number and a unit"),
        ("1e3s", "write a number and a unit"),
        ("٣s", "write a number and a unit"),
        ("9" * 100, "write a number and a unit"),
    ],
)
def test_an_invalid_duration_is_refused_with_what_to_write(text: str, what: str) -> None:
    with pytest.raises(DurationError) as caught:
        parse_duration(text)
    assert what in str(caught.value)
    assert len(str(caught.value)) < 150


@given(st.integers(0, 10**8))
def test_what_is_written_can_be_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (30, "30s"), (90, "90s"), (120, "2m"), (0.5, "500ms")]
)
def test_the_largest_unit_that_makes_it_whole(seconds: float, text: str) -> None:
    assert format_duration(float(seconds)).replace("0.0s", "0s") == text


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_our_own_error(text: str) -> None:
    with contextlib.suppress(DurationError):
        assert parse_duration(text) >= 0
