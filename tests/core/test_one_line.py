from hypothesis import example, given
from hypothesis import strategies as st

from sgpud.core.text import LIMIT, one_line


def test_ordinary_text_stays_as_it_is() -> None:
    assert one_line("NVIDIA A100-SXM4-80GB: 80 GiB, Größe ≥ 1") == (
        "NVIDIA A100-SXM4-80GB: 80 GiB, Größe ≥ 1"
    )


def test_what_ends_a_line_or_steers_a_terminal_is_spelled_out() -> None:
    assert one_line("a\nb\r\x1b[2J\u202e\u2028\x85") == r"a\nb\r\x1b[2J\u202e\u2028\x85"


def test_a_long_text_is_cut_and_says_by_how_much() -> None:
    assert one_line("x" * (LIMIT + 5)) == "x" * LIMIT + "... (5 more characters)"


@given(st.text(st.characters()))
@example("\udcff")
def test_any_text_becomes_one_printable_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    line.encode()
