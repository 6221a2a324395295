"""The state directory: complete and private files, and failures that affect nothing else."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sgpud.node.store import LARGEST, StateDirectory
from tests.surroundings import descriptors, listening, without_privilege

NAME = "last-good.toml"
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from sgpud.node.store import StateDirectory

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
store = StateDirectory(Path(sys.argv[1]))
print(store.write("last-good.toml", b"x" * 10_000), store.write("last-good.toml", b"small"))
"""


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path / "var" / "sgpud")
    assert store.read(NAME) is None
    assert store.write(NAME, b"one")
    assert store.write(NAME, b"two")
    assert store.read(NAME) == b"two"
    assert store.path(NAME) == tmp_path / "var" / "sgpud" / NAME


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_read_it(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = StateDirectory(tmp_path / "sgpud")
        assert store.write(NAME, b"text")
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.path(NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700


def test_a_file_is_replaced_not_modified(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path)
    store.write(NAME, b"old")
    with store.path(NAME).open("rb") as reader:
        store.write(NAME, b"new and longer")
        assert reader.read() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == [NAME]


def test_a_symlink_is_replaced_not_followed(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path / "sgpud")
    store.directory.mkdir()
    other = tmp_path / "other"
    other.write_bytes(b"mine")
    store.path(NAME).symlink_to(other)
    assert store.write(NAME, b"text")
    assert other.read_bytes() == b"mine"
    assert not store.path(NAME).is_symlink()


@pytest.mark.slow
def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path)
    store.write(NAME, b"old")
    program = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=60, check=True, cwd=Path.cwd()
    )
    assert done.stdout.split() == ["False", "True"]
    assert [each.name for each in tmp_path.iterdir()] == [NAME]
    assert store.read(NAME) == b"small"


def test_a_failure_is_logged_with_its_consequence(tmp_path: Path) -> None:
    (tmp_path / "sgpud").touch()
    store = StateDirectory(tmp_path / "sgpud")
    with listening() as logged:
        assert not store.write(NAME, b"text")
    (line,) = logged.lines
    assert str(store.path(NAME)) in line
    assert "loses this on a restart" in line


def test_a_read_only_directory_is_not_fatal(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path)
    store.write(NAME, b"old")
    tmp_path.chmod(0o555)
    with without_privilege(), listening() as logged:
        assert not store.write(NAME, b"new")
    tmp_path.chmod(0o755)
    assert logged.about("Cannot write")
    assert store.read(NAME) == b"old"


def test_an_unreadable_file_is_logged_and_counts_as_absent(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path)
    store.path(NAME).mkdir()
    with listening() as logged:
        assert store.read(NAME) is None
    assert logged.about(f"Cannot read {store.path(NAME)}")


def test_a_file_that_is_too_large_is_ignored(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path)
    with store.path(NAME).open("wb") as file:
        file.truncate(LARGEST + 1)
    assert store.read(NAME) is None
    store.path(NAME).write_bytes(b"x" * LARGEST)
    assert store.read(NAME) == b"x" * LARGEST


def test_a_directory_in_place_of_the_temporary_file_is_not_fatal(tmp_path: Path) -> None:
    store = StateDirectory(tmp_path)
    tmp_path.joinpath(f".{NAME}.{os.getpid()}").mkdir()
    with listening() as logged:
        assert not store.write(NAME, b"text")
    assert logged.about("Cannot write")


def test_writing_and_failing_leak_no_descriptor(tmp_path: Path) -> None:
    good, bad = StateDirectory(tmp_path / "good"), StateDirectory(tmp_path / "file" / "bad")
    (tmp_path / "file").touch()
    good.write(NAME, b"first")
    before = descriptors()
    for _ in range(10):
        good.write(NAME, b"text")
        bad.write(NAME, b"text")
        bad.read(NAME)
    assert descriptors() <= before
