"""Whatever is read is a Config or a ConfigError, never another exception."""

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.config.diff import diff
from sgpud.config.load import parse
from sgpud.config.problems import ConfigError, Problem
from sgpud.config.schema.kinds import toml
from sgpud.config.schema.sections import ROOT
from sgpud.config.values import Config
from tests.config.documents import VALID, Document

KEYS = sorted(
    {section.name for section in ROOT.keys} | {key for keys in VALID.values() for key in keys}
)
_names = st.sampled_from(KEYS) | st.text(max_size=3)
_scalars = (
    st.booleans()
    | st.integers(-(1 << 80), 1 << 80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3)


_documents = st.dictionaries(_names, st.recursive(_scalars, _nested, max_leaves=10), max_size=5)


def found(text: str | bytes, overrides: list[str]) -> tuple[Problem, ...]:
    """The problems that a text gives, or the warnings of the configuration that it gives."""
    try:
        return parse(text, "f", overrides).warnings
    except ConfigError as error:
        return error.problems


def survives(text: str | bytes, overrides: list[str]) -> None:
    """Check that a text gives a configuration, or problems that can be shown."""
    assert all(str(problem).isprintable() for problem in found(text, overrides))


@given(st.text() | st.binary(), st.lists(st.text() | st.text("log.ev=[]{}\"'\n1a"), max_size=3))
@example("x = 0x" + "f" * 5_000, [])
@example("x = 2026-02-30", [])
@example("'\\ud800' = 1", [])
@example("x = nan", ["log.level=inf"])
def test_any_text_and_any_command_line(text: str | bytes, overrides: list[str]) -> None:
    survives(text, overrides)


@given(_documents)
def test_known_names_with_any_values(document: Document) -> None:
    survives("\n".join(f"{toml(name)} = {toml(value)}" for name, value in document.items()), [])


@given(st.lists(st.sampled_from(KEYS) | st.text("[]{}=.,#'\"\n *a1", max_size=4), max_size=30))
def test_pieces_of_a_configuration_in_any_order(pieces: list[str]) -> None:
    survives("".join(pieces), [])


@given(st.text("*?[]!-a", max_size=8), st.text("*?[]!-a", max_size=8))
def test_any_entries_of_rules_and_lists(one: str, other: str) -> None:
    rules = "".join(f"[[gpu]]\nmatch = {toml(entry)}\n" for entry in (one, other))
    survives(f"[gpus]\nallow = {toml([one])}\ndeny = {toml([other])}\n{rules}", [])


def test_the_most_rules_that_are_allowed_are_checked_in_time() -> None:
    rules = "".join(f"[[gpu]]\nmatch = '{number}{'*a' * 60}'\n" for number in range(256))
    config = parse(rules, "f")
    assert len(diff(config, Config())) == 256
