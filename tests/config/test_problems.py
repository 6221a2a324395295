"""Problems are single printable lines, errors first."""

from hypothesis import given
from hypothesis import strategies as st

from sgpud.config.problems import ConfigError, Problem, render

ERROR = Problem("/etc/sgpud.toml", 3, "log.level", 'is "x"; expected "info"')
WARNING = Problem("/etc/sgpud.toml", 1, "gpus.deny", "is unwise", warning=True)
FILE = Problem("/etc/sgpud.toml", 0, "", "does not exist")


def test_a_problem_has_file_line_key_and_text() -> None:
    assert str(ERROR) == '/etc/sgpud.toml:3: log.level: is "x"; expected "info"'
    assert str(WARNING) == "/etc/sgpud.toml:1: warning: gpus.deny: is unwise"
    assert str(FILE) == "/etc/sgpud.toml: does not exist"


def test_errors_come_before_warnings() -> None:
    lines = [str(FILE), str(ERROR), str(WARNING)]
    assert render([WARNING, FILE, ERROR]).split("\n") == lines
    assert ConfigError([WARNING, FILE, ERROR]).problems == (FILE, ERROR, WARNING)
    assert str(ConfigError([WARNING, FILE, ERROR])).split("\n") == lines
    assert render([]) == ""


@given(st.text(), st.integers(0), st.text(), st.text())
def test_a_problem_is_always_one_printable_line(file: str, line: int, key: str, text: str) -> None:
    assert str(Problem(file, line, key, text)).isprintable()


def test_what_cannot_be_encoded_is_escaped() -> None:
    assert str(Problem("/etc/\udcff", 0, "", "x\x1b[2J")) == "/etc/\\udcff: x\\x1b[2J"
