"""One mistake in a valid text is one problem on its line."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sgpud.config.lines import Path
from sgpud.config.load import parse
from sgpud.config.problems import ConfigError
from sgpud.config.schema.check import key_name
from sgpud.config.schema.kinds import (
    Boolean,
    Choice,
    Integer,
    ListOf,
    Number,
    Table,
    Text,
    ValueType,
)
from sgpud.config.schema.sections import ROOT
from tests.config.documents import Document, documents, write

WRONG: dict[type[ValueType], tuple[Any, ...]] = {
    Boolean: (0, 1.0, "true", [True], {}),
    Integer: (0, -1, 10_001, 1.0, True, "5", [5]),
    Number: (-1, 1e9, True, "5", [5]),
    Choice: ("", "Spread", 0, False, ["spread"]),
    Text: ("\n", 0, ["a"]),
    ListOf: ("*", 0, {}, [0], [[]]),
    Table: ("", 0, True),
}
"""Values that are wrong for every key of a kind, each for one reason."""


def one_problem(document: Document, place: Path) -> None:
    """Check that a document has one problem: with the thing at a place."""
    text, lines = write(document)
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")
    (problem,) = (each for each in caught.value.problems if not each.warning)
    assert problem.key == key_name(place)
    while place not in lines:
        place = place[:-1]
    assert problem.line == lines[place]


def spots(document: Document) -> list[Path]:
    """Every section that stands once, and every key, those of rules included."""
    found: list[Path] = []
    for name, section in document.items():
        if isinstance(section, dict):
            found.append((name,))
            found.extend((name, key) for key in section)
        else:
            found.extend((name, number, key) for number, rule in enumerate(section) for key in rule)
    return found


def at(document: Any, path: Path) -> Any:
    """What stands at a path."""
    for part in path:
        document = document[part]
    return document


def kind_at(path: Path) -> ValueType:
    """The kind of the key at a path."""
    kind: ValueType = ROOT
    for part in path:
        if isinstance(kind, Table):
            kind = next(key.kind for key in kind.keys if key.name == part)
        elif isinstance(kind, ListOf):
            kind = kind.element
    return kind


@given(documents(), st.data(), st.sampled_from(["s", "_", " x", ".", "\n", "é"]))
def test_an_invalid_resource_name(document: Document, data: st.DataObject, tail: str) -> None:
    known = [path for path in spots(document) if path[-1] != "match"]
    assume(known)
    *above, last = data.draw(st.sampled_from(known))
    table, name = at(document, tuple(above)), f"{last}{tail}"
    table[name] = table.pop(last)
    one_problem(document, (*above, name))


@given(documents(), st.data())
def test_a_value_that_is_wrong(document: Document, data: st.DataObject) -> None:
    assume(spots(document))
    path = data.draw(st.sampled_from(spots(document)))
    wrong = data.draw(st.sampled_from(WRONG[type(kind_at(path))]))
    assume((path, wrong) != (("http", "listen"), ""))  # the one text that may be empty
    at(document, path[:-1])[path[-1]] = wrong
    one_problem(document, path)


@given(documents(), st.data())
def test_a_rule_without_match(document: Document, data: st.DataObject) -> None:
    rules = document.setdefault("gpu", [{"match": "0"}])
    number = data.draw(st.integers(0, len(rules) - 1))
    del rules[number]["match"]
    one_problem(document, ("gpu", number, "match"))


@given(documents(), st.data(), st.integers(1, 5))
def test_a_key_that_comes_twice(document: Document, data: st.DataObject, breaks: int) -> None:
    text, lines = write(document)
    keys = [path for path in spots(document) if len(path) > 1]
    assume(keys)
    path = data.draw(st.sampled_from(keys))
    rows = text.split("\n")
    rows.insert(lines[path], f"{path[-1]} = [{breaks * chr(10)}]")
    with pytest.raises(ConfigError) as caught:
        parse("\n".join(rows), "f")
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (lines[path] + 1, key_name(path))
    assert f"first on line {lines[path]}:" in problem.text
