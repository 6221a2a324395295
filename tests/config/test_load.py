"""A file that cannot be read is a ConfigError that says why; what the command line sets wins."""

import os
import sys
from pathlib import Path

import pytest

from sgpud.config.load import load, parse
from sgpud.config.problems import ConfigError, Problem
from sgpud.config.source import MAX_BYTES
from sgpud.core.sharing.rules import Multiple

SYMBOLS = Path("/proc/kallsyms")


def refused(path: Path | str, *overrides: str) -> tuple[Problem, ...]:
    """The problems of a file that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return caught.value.problems


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sgpud.toml"
    path.write_text("[sharing]\nduplication_factor = 7\n")
    assert load(path).sharing.default.factor == 7
    assert load(str(path), ["sharing.duplication_factor=8"]).sharing.default.factor == 8


def test_dev_null_is_the_defaults() -> None:
    assert load("/dev/null") == parse("", "/dev/null")
    assert load("/dev/null", ["sharing.duplication_factor=7"]).sharing.default.factor == 7


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path / "none")
    assert str(problem) == f"{tmp_path}/none: does not exist"


def test_the_command_line_is_checked_beside_a_missing_file(tmp_path: Path) -> None:
    missing, wrong = refused(tmp_path / "none", "log.level=x")
    assert "does not exist" in missing.text
    assert (wrong.file, wrong.line, wrong.key) == ("--set", 0, "log.level")


def test_anything_but_a_regular_file_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert refused(tmp_path)[0].text == "is a directory, not a file"
    assert refused(tmp_path / "fifo")[0].text == "is not a regular file"
    assert refused("/dev/zero")[0].text == "is not a regular file"


def test_an_unusable_name_is_explained(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "file").touch()
    assert "too many levels of symbolic links" in refused(tmp_path / "circle")[0].text
    assert refused(tmp_path / "file" / "x")[0].text == "cannot be read: Not a directory"
    assert refused("a" * 300)[0].text == "cannot be read: File name too long"
    assert "a NUL in its name" in refused("a\0b")[0].text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another user's place")
def test_a_file_of_another_user_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "sgpud.toml"
    path.touch(mode=0o600)
    os.seteuid(65534)
    try:
        (problem,) = refused(path)
    finally:
        os.seteuid(0)
    assert problem.text.startswith("cannot be read: permission denied")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc/self/mem")
def test_a_file_whose_content_cannot_be_read_is_explained() -> None:
    assert refused("/proc/self/mem")[0].text == "cannot be read: Input/output error"


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "sgpud.toml"
    path.write_bytes(b"#" * MAX_BYTES)
    load(path)
    os.truncate(path, 1 << 40)
    (problem,) = refused(path)
    assert problem.text == "is larger than 262144 bytes"


@pytest.mark.skipif(not SYMBOLS.is_file(), reason="this system has no large file of unknown size")
def test_a_file_without_a_size_is_read_up_to_the_limit() -> None:
    assert SYMBOLS.stat().st_size == 0
    assert refused(SYMBOLS)[0].text == "is larger than 262144 bytes"


@pytest.mark.parametrize(
    ("data", "line", "says"),
    [
        (b"\xef\xbb\xbf[log]", 1, "byte order mark of UTF-8"),
        ("[log]".encode("utf-16"), 1, "byte order mark of UTF-16"),
        (b"\xfe\xff\0[", 1, "byte order mark of UTF-16"),
        (b"# a\n# \xe9\n", 2, "is not UTF-8 (byte 0xe9); save it as UTF-8"),
        (b"#" * (MAX_BYTES + 1), 0, "is 262145 bytes long, at most 262144"),
        (b"a = 1\0", 1, "is not TOML: "),
    ],
)
def test_invalid_utf8_is_explained(data: bytes, line: int, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(data, "f")
    (problem,) = caught.value.problems
    assert problem.line == line
    assert says in problem.text


def test_a_string_that_cannot_be_written_as_utf_8_is_refused() -> None:
    with pytest.raises(ConfigError, match="is not UTF-8"):
        parse("# \ud800", "f")


@pytest.mark.parametrize(
    "override",
    [
        "sharing.multiple=any",
        'sharing.multiple="any"',
        "sharing.multiple = 'any'",
        " sharing.multiple=any ",
    ],
)
def test_a_text_on_the_command_line_needs_no_quotes(override: str) -> None:
    text = "[sharing]\nmultiple = 'same'\nduplication_factor = 3"
    sharing = parse(text, "f", [override]).sharing
    assert sharing.multiple is Multiple.ANY
    assert sharing.default.factor == 3


def test_the_last_override_on_the_command_line_wins() -> None:
    config = parse("", "f", ["log.level=warn", "gpus.deny=['0', '1']", "log.level=error"])
    assert config.log.level.value == "error"
    assert config.sharing.deny == ("0", "1")


@pytest.mark.parametrize(
    ("override", "key", "says"),
    [
        ("", "", "is not of the form section.key=VALUE"),
        ("sharing.multiple", "", "is not of the form"),
        ("multiple=any", "", "is not of the form"),
        (".=", "", "is not of the form"),
        ("sharing.multiple=", "sharing.multiple", 'is ""; expected "distinct"'),
        ("sharing.duplication_factor=0", "sharing.duplication_factor", "0 is out of range"),
        ("sharing.duplication_factor=x", "sharing.duplication_factor", 'is the string "x"'),
        ("sharing.duplication_factor=1\n2", "sharing.duplication_factor", "is not a TOML value"),
        ("log.level='a'\nb=1", "log.level", "is more than one value"),
        ('log.level="a', "log.level", "is not a TOML value"),
        ("gpus.deny=0", "gpus.deny", "is the number 0; expected list of strings"),
        ("gpus.deny=A100", "gpus.deny", 'is the string "A100"; expected list of strings'),
        ("gpu.match=*", "gpu.match", "rules can only be set in the file"),
        ("log.levle=info", "log.levle", "did you mean level?"),
        ("lgo.level=info", "lgo", "did you mean log?"),
        ("kubelet.numa=" + "[" * 10_000, "kubelet.numa", "is not a TOML value"),
    ],
)
def test_a_wrong_override_is_explained(override: str, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("", "f", [override])
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.key) == ("--set", 0, key)
    assert says in problem.text


def test_a_mistake_in_the_file_is_one_even_where_the_command_line_sets_the_key() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("[log]\nlevel = 1", "f", ["log.level=info"])
    assert [str(problem)[:14] for problem in caught.value.problems] == ["f:2: log.level"]
