import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.units import Amount, SizeError, exact_size, parse_amount, parse_size
from tests.core.values import GIB


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("5%", Amount(percent=5)),
        ("2.5 %", Amount(percent=2.5)),
        ("100%", Amount(percent=100)),
        ("2GiB", Amount(2 * GIB)),
        ("0", Amount()),
        ("0%", Amount()),
    ],
)
def test_parts_of_a_gpu_as_people_write_them(text: str, amount: Amount) -> None:
    assert parse_amount(text) == amount


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("101%", "more than 100 %"),
        ("100.001%", "more than 100 %"),
        ("%", "write a percentage"),
        ("-5%", "write a percentage"),
        ("five%", "write a percentage"),
        ("5", "the unit is missing"),
        ("2GB", 'write the unit as "GiB"'),
    ],
)
def test_an_invalid_amount_is_refused_with_what_to_write(text: str, what: str) -> None:
    with pytest.raises(SizeError, match=what):
        parse_amount(text)


def test_an_amount_in_bytes() -> None:
    assert Amount(percent=5).of(40 * GIB) == 2 * GIB
    assert Amount(GIB).of(40 * GIB) == GIB


@given(st.integers(0, 10**6), st.sampled_from(["KiB", "MiB", "GiB"]), st.integers(0, 999))
def test_a_size_can_be_written_as_it_was_read(whole: int, unit: str, fraction: int) -> None:
    try:
        size = parse_size(f"{whole}.{fraction:03}{unit}")
    except SizeError:
        return
    assert parse_size(exact_size(size)) == size


@given(st.integers(0, 100_000))
def test_a_percentage_can_be_written_as_it_was_read(thousandths: int) -> None:
    amount = parse_amount(f"{thousandths / 1000:.3f}%")
    assert parse_amount(str(amount)) == amount


@given(st.text(max_size=12))
def test_any_text_is_an_amount_or_our_own_error(text: str) -> None:
    with contextlib.suppress(SizeError):
        assert parse_amount(text).of(GIB) >= 0
