"""The YAML that machines write is read; every other is refused with its line."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.yaml.block import parse_yaml
from sgpud.yaml.scalars import Value, YamlError

DOCUMENT = """\
---
# made by hand
a: plain text   # a comment
b: "quoted # not a comment"
'c d': 'it''s'
list:
- one
-   two
- key: 1
  other: x:y::z
-
  late: "0"
- - nested
  - again
deep:
    wide:
        - in
        - out
empty:
none: ~
nothing: null
no-list: []
no-map: {}
flow: [0, "1", a:b, {x: [y], 'z': ~}]   # said
map: {name: nvidia.com/gpu, replicas: 10}
text: |
  # kept
  first:

    second
last-text: |-
    one line
last: --flag=a=b
"""


def test_a_document_of_every_kind_that_is_read() -> None:
    assert parse_yaml(DOCUMENT) == {
        "a": "plain text",
        "b": "quoted # not a comment",
        "c d": "it's",
        "list": [
            "one",
            "two",
            {"key": "1", "other": "x:y::z"},
            {"late": "0"},
            ["nested", "again"],
        ],
        "deep": {"wide": ["in", "out"]},
        "empty": None,
        "none": None,
        "nothing": None,
        "no-list": [],
        "no-map": {},
        "flow": ["0", "1", "a:b", {"x": ["y"], "z": None}],
        "map": {"name": "nvidia.com/gpu", "replicas": "10"},
        "text": "# kept\nfirst:\n\n  second\n",
        "last-text": "one line",
        "last": "--flag=a=b",
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1, 2", 1),
        ("a: [1 2] 3", 1),
        ("a: [1,, 2]", 1),
        ("a: [&x 1]", 1),
        ("a: {b: 1, b: 2}", 1),
        ("a: {b}", 1),
        ("b: 1\na: " + "[" * 40 + "]" * 40, 2),
        ("a: &x 1", 1),
        ("a: *x", 1),
        ("a: !!str 1", 1),
        ("a: |+\n  text", 1),
        ("a: |2\n  text", 1),
        ("a: |\n    text\n  less", 3),
        ("- |\n  text", 1),
        ("a: >-\n  text", 1),
        ("a: b: c", 1),
        ("a: 'open", 1),
        ('a: "open', 1),
        ('a: "\\x41"', 1),
        ("x: 1\n\ta: 1", 2),
        ("a: 1\na: 2", 2),
        ("a: 1\n  b: 2", 2),
        ("a:\n    b: 1\n  c: 2", 3),
        ("- a\nb: 1", 2),
        ("a: 1\n---\nb: 2", 2),
        ("%YAML 1.2\n---\na: 1", 1),
        ("plain\ntext", 2),
        ("? a\n: b", 1),
        ("- " * 40 + "a", 1),
    ],
)
def test_anything_else_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert caught.value.line == line


@pytest.mark.parametrize("text", ["", "\n\n", "---\n", "# nothing\n", "a: 1\n...\nrest"])
def test_an_end_and_an_empty_document(text: str) -> None:
    assert parse_yaml(text) in (None, {"a": "1"})


def test_a_long_line_takes_no_long_time() -> None:
    assert parse_yaml("a: x" + " " * 200_000 + "y") == {"a": "x" + " " * 200_000 + "y"}


def emit(value: Value, indent: int = 0) -> str:
    """YAML in the manner of nvidia-ctk: lists at the indentation of their key."""
    pad = " " * indent
    if isinstance(value, dict) and value:
        lines = []
        for key, inner in value.items():
            if isinstance(inner, list) and inner:
                lines.append(f"{pad}{json.dumps(key)}:\n{emit(inner, indent)}")
            elif isinstance(inner, dict) and inner:
                lines.append(f"{pad}{json.dumps(key)}:\n{emit(inner, indent + 2)}")
            else:
                lines.append(f"{pad}{json.dumps(key)}: {emit(inner)}")
        return "\n".join(lines)
    if isinstance(value, list) and value:
        return "\n".join(f"{pad}- {emit(inner, indent + 2).lstrip(' ')}" for inner in value)
    return "null" if value is None else json.dumps(value)


VALUES = st.recursive(
    st.none() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_what_was_written_is_read_back(value: Value) -> None:
    assert parse_yaml(emit(value)) == value


def line_of_error(text: str) -> int:
    """The line that is refused, or 0."""
    try:
        parse_yaml(text)
    except YamlError as error:
        return error.line
    return 0


TOKENS = st.sampled_from(
    [
        "- ",
        "a: ",
        "b:",
        "\n",
        "  ",
        '"',
        "'",
        "#",
        "---",
        "x",
        "[]",
        "\t",
        "[",
        "]",
        "{",
        "}",
        ",",
        "|",
        "|-",
    ]
)


@given(st.lists(TOKENS, max_size=40).map("".join) | st.text())
@example("-")
@example("a: |")
@example("a: |\n\n")
@example("a: [")
@example("a:\n-")
@example("- a: 1\n b: 2")
def test_any_text_is_a_value_or_a_yaml_error(text: str) -> None:
    assert line_of_error(text) in range(text.count("\n") + 2)
