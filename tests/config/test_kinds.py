"""Values are shown as TOML writes them, on one line."""

import datetime as dt
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.config.schema.kinds import describe, show, toml, toml_key

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_texts = st.text(st.characters(blacklist_categories=["Cs"]))
_values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | _texts | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(_texts, inner),
)


@pytest.mark.slow
@given(_values)
@example("\x7f\xa0\u200b\U000e0001")
@example({"": {"a b": [1e300, -0.0]}})
def test_what_is_written_is_what_is_read(value: Any) -> None:
    written = toml(value)
    assert written.isprintable()
    assert tomllib.loads(f"x = {written}") == {"x": value}


@given(_texts)
def test_a_key_is_written_as_toml_reads_it(name: str) -> None:
    assert tomllib.loads(f"{toml_key(name)} = 1") == {name: 1}


def test_long_values_are_shortened() -> None:
    assert show("a" * 58) == f'"{"a" * 58}"'
    assert show("a" * 59) == f'"{"a" * 58}…'


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (True, "true"),
        (7, "the number 7"),
        (1.0, "the float 1.0"),
        ("x", 'the string "x"'),
        ([], "a list"),
        ({}, "a table"),
        (dt.time(7, 30), "the date or time 07:30:00"),
    ],
)
def test_a_value_is_described_for_people(value: object, words: str) -> None:
    assert describe(value) == words
