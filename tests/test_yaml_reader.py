"""People's YAML is read; what is not YAML, or too much of it, is refused at once."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.yaml_reader import LARGEST, MAX_DEPTH, MOST_VALUES, Value, YamlError, read_documents

PEOPLES = """\
%YAML 1.1
--- # the defaults of every kind of node
base: &base {migStrategy: none, replicas: 10}
node:
  <<: *base
  replicas: 4
'quoted': "caf\\xe9"
names: [0, 1, 0x1f, true, 2024-01-01, 1_000, ~]
folded: >-
  one
  line
kept: |+
  two

  lines

---
kind: other
...
"""


def read(text: str) -> list[Value]:
    return read_documents(text.encode())


def test_anchors_merges_folded_and_kept_texts_and_several_documents_are_read() -> None:
    assert read(PEOPLES) == [
        {
            "base": {"migStrategy": "none", "replicas": "10"},
            "node": {"migStrategy": "none", "replicas": "4"},
            "quoted": "café",
            "names": ["0", "1", "0x1f", "true", "2024-01-01", "1_000", None],
            "folded": "one line",
            "kept": "two\n\nlines\n\n",
        },
        {"kind": "other"},
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_read_over(encoding: str) -> None:
    assert read_documents("name: café".encode(encoding)) == [{"name": "café"}]


def test_json_is_read_as_well() -> None:
    text = '{\n\t"a": [1, 0.5, {"b": "x\\/y", "c": "\\ud83d\\ude00"}]}'
    assert read(text) == [{"a": ["1", "0.5", {"b": "x/y", "c": "\U0001f600"}]}]
    assert read('{a: [1, "2"]}') == [{"a": ["1", "2"]}]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_a_file_without_a_document(text: str) -> None:
    assert read(text) == []


def doubling(first: str, each: str) -> str:
    """Lines that each name the line above nine times: 9^30 values, written out."""
    lines = [f"v0: &v0 {first}"]
    lines += [
        f"v{n}: &v{n} " + each % ",".join([f"*v{n - 1}"] * 9) for n in range(1, 31)
    ]  # fmt: skip
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        doubling("[lol]", "[%s]"),
        doubling("{a: lol}", "{<<: [%s]}"),
        "- x\n" * (MOST_VALUES + 1),
    ],
    ids=["aliases", "merges", "plain"],
)
def test_more_values_than_are_read_are_refused_at_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(YamlError, match=f"more than {MOST_VALUES} values"):
        read(text)
    assert time.process_time() - began < 5


def test_a_file_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(YamlError, match=f"larger than {LARGEST} bytes"):
        read_documents(b"\xff" * (LARGEST + 1))


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: [1, 2\n", 2, "expected ',' or ']'"),
        ("a: {b: 1, b: 2}", 1, "duplicate key b"),
        ("x: 1\na: 1\na: 2", 3, "duplicate key a"),
        ("a: &a [*a]", 1, r"\*a refers to nothing complete above it"),
        ("a: &a 1\n---\nb: *a", 3, r"\*a refers to nothing complete above it"),
        ("? [a]\n: b", 1, "a key that is not a string"),
        ("~: b", 1, "a key that is not a string"),
        ("a: !!python/object/apply:os.system [true]", 1, "python/object"),
        ("a: !vault secret", 1, "!vault"),
        ("a: !!set {b, c}", 1, "set"),
        ("x: 1\n\ta: 1", 2, r"tab|cannot start any token"),
        ("a: b: c", 1, "mapping values are not allowed"),
        ("a: 'open\n", 2, "quoted scalar"),
        ("b: 1\na: " + "[" * (MAX_DEPTH + 1), 2, f"more than {MAX_DEPTH} levels deep"),
        ("- " * 100_000, 1, f"more than {MAX_DEPTH} levels deep"),
        ("[" * 100_000, 1, "nesting|levels deep"),
        ("a: \x00", 0, "control characters|special characters"),
    ],
)
def test_anything_else_is_refused_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(YamlError, match=reason) as caught:
        read(text)
    assert caught.value.line == line


def test_bytes_that_are_not_text_are_refused() -> None:
    with pytest.raises(YamlError, match="not UTF-8 text"):
        read_documents(b"a: \xff")


VALUES = st.recursive(
    st.none() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(min_codepoint=32, max_codepoint=127), max_size=6),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(VALUES)
def test_what_was_written_is_read_back(value: Value) -> None:
    assert read(yaml.safe_dump(value)) == [value]
    assert read(json.dumps([value])) == [[value]]


@given(
    st.lists(
        st.sampled_from(
            [*"\"'#x\t[]{},|>&*!?-:", "- ", "a: ", "b:", "\n", "  ", "---", "<<: ", "&a ", "*a"]
        ),
        max_size=40,
    ).map("".join)
    | st.text()
)
@example("&a *a")
@example("a: |\n\n")
@example("- a: 1\n b: 2")
def test_any_text_is_documents_or_a_yaml_error(text: str) -> None:
    with suppress(YamlError):
        assert isinstance(read_documents(text.encode("utf-8", "surrogatepass")), list)
