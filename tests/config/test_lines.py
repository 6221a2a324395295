"""The scanner finds the line of every key of a valid text, and never raises."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.config.lines import MAX_DEPTH, Path, locate
from tests.config.texts import written_documents

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def paths(value: Any, above: Path = ()) -> Iterator[Path]:
    """Every path of a parsed document."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for part, inner in items:
        yield (*above, part)
        yield from paths(inner, (*above, part))


@pytest.mark.slow
@given(written_documents())
def test_every_key_of_a_document_is_found_on_its_line(
    document: tuple[str, dict[Path, int]],
) -> None:
    text, lines = document
    assert locate(text).first == lines
    assert set(lines) == set(paths(tomllib.loads(text)))


@pytest.mark.slow
@given(written_documents(), st.data())
def test_a_broken_document_does_not_stop_the_scanner(
    document: tuple[str, dict[Path, int]], data: st.DataObject
) -> None:
    text = document[0]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    broken = text[:start] + data.draw(st.text("[]{}\"'=,.#\n\\a1", max_size=3)) + text[end:]
    last = broken.count("\n") + 1
    assert all(1 <= line <= last for line in locate(broken).first.values())


@given(st.text("[]{}\"'=,.#\n\r\\ab1 \t") | st.text())
@example("[a]\n[")
@example('a = """')
@example("a = [{b = 1, c")
@example("= 1")
@example('"\\U00110000" = 1')
@example("a = [" + "'" * 5)
def test_garbage_does_not_stop_the_scanner(text: str) -> None:
    found = locate(text)
    try:
        document = tomllib.loads(text)
    except ValueError:
        return
    assert set(found.first) == set(paths(document))


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("[a]\nb.c = 1", ("a", "b", "c"), 2),
        ("[[a]]\n[[a]]\nb = 1", ("a", 1, "b"), 3),
        ("[[a]]\n[[a.b]]\n[a.b.c]\nd = 1", ("a", 0, "b", 0, "c", "d"), 4),
        ("x = [\n 1,\n\n # 2\n 3]", ("x", 1), 5),
        ("x = {y = [\n{z = 1}]}", ("x", "y", 0, "z"), 2),
        ("x = [1]", ("x", 7, "y"), 1),
        ("x = 1", ("y",), 0),
    ],
)
def test_a_path_is_on_its_line_or_on_that_of_what_is_around_it(
    text: str, path: Path, line: int
) -> None:
    assert locate(text).of(path) == line


@pytest.mark.parametrize(
    "text",
    [
        "\nx = " + "[" * 200_000,
        "\nx = " + "{a = " * 50_000,
        "\n" + "a." * 100_000 + "a = 1",
        "\n[" + "a." * 100_000 + "a]",
        "\nx = " + "9" * 200_000,
        "\nx = 0x" + "f" * 200_000,
    ],
)
def test_a_text_out_of_proportion_ends_the_scan_on_its_line(text: str) -> None:
    limit = locate(text).limit
    assert limit is not None
    assert limit[0] == 2
    assert len(locate(text).first) <= MAX_DEPTH + 1


def test_a_text_is_scanned_in_linear_time() -> None:
    hostile = (
        'x = ["""' + '\\"""' * 60_000,
        "x = [" + "'''" * 80_001,
        "# " + "#" * 250_000,
        "a\n" * 120_000,
        "x = [" + "1," * 120_000 + "]",
    )
    assert all(locate(text).limit is None for text in hostile)
