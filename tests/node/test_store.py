"""The state directory: files that are whole and private, and failures that cost nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from sgpud.node.store import (
    LARGEST,
    RETRY_FIRST,
    RETRY_MOST,
    StateDirectory,
    sealed,
    unsealed,
)
from tests.surroundings import descriptors, listening, without_privilege

NAME = "last-good.toml"
Failures = dict[str, OSError]


def directory(path: Path, clock: Clock | None = None) -> StateDirectory:
    return StateDirectory(path, clock or Clock())


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    store = directory(tmp_path / "var" / "sgpud")
    assert store.read(NAME) is None
    store.write(NAME, b"one")
    store.write(NAME, b"two")
    assert directory(store.directory).read(NAME) == b"two"
    assert store.path(NAME) == tmp_path / "var" / "sgpud" / NAME
    assert store.problem == ""


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_no_other_user_may_read_it(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = directory(tmp_path / "sgpud")
        store.write(NAME, b"text")
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.path(NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700


def test_a_file_is_replaced_and_never_changed(tmp_path: Path) -> None:
    store = directory(tmp_path)
    store.write(NAME, b"old")
    with store.path(NAME).open("rb") as reader:
        store.write(NAME, b"new and longer")
        assert reader.read() == sealed(b"old")
    assert names(tmp_path) == [NAME]


# Failures. ---------------------------------------------------------------------------------------


def test_a_failed_write_is_retried_until_it_is_done(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "sgpud").touch()  # in the place of the directory
    store = directory(tmp_path / "sgpud", clock)
    with listening() as said:
        store.write(NAME, b"cordoned")
        clock.pump([0.5] * 200)
    assert len(said.about("The state is not saved")) == 1
    assert str(store.path(NAME)) in said.lines[0]
    assert str(store.path(NAME)) in store.problem
    (tmp_path / "sgpud").unlink()
    with listening() as said:
        clock.pump([0.5] * round(2 * RETRY_MOST))
    assert said.about("saved again")
    assert store.problem == ""
    assert directory(store.directory).read(NAME) == b"cordoned"
    assert clock.getDelayedCalls() == []


def test_the_next_write_retries_what_failed_before(tmp_path: Path) -> None:
    (tmp_path / "sgpud").touch()
    store = directory(tmp_path / "sgpud")
    store.write("one", b"1")
    (tmp_path / "sgpud").unlink()
    store.write("two", b"2")
    assert store.problem == ""
    assert names(store.directory) == ["one", "two"]


def test_a_problem_and_its_end_are_reported(tmp_path: Path) -> None:
    clock, heard = Clock(), []
    (tmp_path / "sgpud").touch()
    store = StateDirectory(
        tmp_path / "sgpud", clock, changed=lambda: heard.append(bool(store.problem))
    )
    store.write(NAME, b"text")
    clock.advance(RETRY_FIRST)
    (tmp_path / "sgpud").unlink()
    clock.advance(2 * RETRY_FIRST)
    assert heard == [True, False]


def test_what_is_not_written_yet_is_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "sgpud").touch()
    store = directory(tmp_path / "sgpud")
    store.write(NAME, b"text")
    assert store.read(NAME) == b"text"


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    store = directory(tmp_path)
    store.path("folder").mkdir()
    store.write("folder", b"new")
    store.write(NAME, b"new")
    assert names(tmp_path) == ["folder", NAME]
    assert store.problem


def test_an_unwritable_directory_raises_no_error(tmp_path: Path) -> None:
    store = directory(tmp_path)
    store.write(NAME, b"old")
    tmp_path.chmod(0o555)
    with without_privilege(), listening() as said:
        store.write(NAME, b"new")
    tmp_path.chmod(0o755)
    assert said.about("The state is not saved")
    assert directory(tmp_path).read(NAME) == b"old"


def test_writing_and_failing_leave_no_descriptor_behind(tmp_path: Path) -> None:
    good, bad = directory(tmp_path / "good"), directory(tmp_path / "file" / "bad")
    (tmp_path / "file").touch()
    good.write(NAME, b"first")
    before = descriptors()
    for _ in range(10):
        good.write(NAME, b"text")
        bad.write(NAME, b"text")
        bad.read("other")
    assert descriptors() <= before


# In a thread. ------------------------------------------------------------------------------------


class Slow:
    """A thread in which each round of writing waits for `go`."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], Failures]) -> Deferred[Failures]:
        done: Deferred[Failures] = Deferred()
        self.waiting.append(lambda: done.callback(work()))
        return done

    def go(self) -> None:
        self.waiting.pop(0)()


def test_writes_go_one_after_the_other_and_the_latest_wins(tmp_path: Path) -> None:
    slow = Slow()
    store = StateDirectory(tmp_path, Clock(), slow)
    for content in (b"1", b"2", b"3"):
        store.write(NAME, content)
    assert (len(slow.waiting), store.path(NAME).exists()) == (1, False)
    slow.go()
    assert unsealed(store.path(NAME).read_bytes()) == b"1"
    slow.go()
    assert unsealed(store.path(NAME).read_bytes()) == b"3"
    assert slow.waiting == []


def test_a_flush_waits_for_what_was_asked_for(tmp_path: Path) -> None:
    slow = Slow()
    store = StateDirectory(tmp_path, Clock(), slow)
    store.write(NAME, b"1")
    store.write(NAME, b"2")
    done: list[None] = []
    store.flush().addCallback(done.append)
    slow.go()
    assert not done
    slow.go()
    assert len(done) == 1
    assert unsealed(store.path(NAME).read_bytes()) == b"2"
    assert store.flush().called


def test_after_the_stop_nothing_is_written(tmp_path: Path) -> None:
    clock = Clock()
    store = directory(tmp_path / "sgpud", clock)
    (tmp_path / "sgpud").touch()
    store.write(NAME, b"1")
    store.stop()
    (tmp_path / "sgpud").unlink()
    store.write(NAME, b"2")
    clock.pump([1.0] * 60)
    assert not store.directory.exists()


# What others may have put there. -----------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path.parent / "elsewhere"),
        lambda path: path.write_bytes(sealed(b"x" * LARGEST)),
    ],
)
def test_what_cannot_be_ours_is_not_read(tmp_path: Path, make: Callable[[Path], object]) -> None:
    (tmp_path / "elsewhere").write_bytes(sealed(b"elsewhere"))
    store = directory(tmp_path)
    make(store.path(NAME))
    with listening() as said:
        assert store.read(NAME) is None
    assert said.about(f"Cannot read {store.path(NAME)}")


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    store = directory(tmp_path / "sgpud")
    store.directory.mkdir()
    other = tmp_path / "other"
    other.write_bytes(b"mine")
    store.path(NAME).symlink_to(other)
    store.write(NAME, b"text")
    assert other.read_bytes() == b"mine"
    assert not store.path(NAME).is_symlink()


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o775, 0o757])
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "sgpud"
    directory(folder).write(NAME, b"an attacker's")
    folder.chmod(mode)
    store = directory(folder)
    with listening() as said:
        assert store.read(NAME) is None
        store.write("gpus.json", b"text")
    assert len(said.about(f"other users can write {folder}: run `chmod go-w {folder}`")) == 2
    assert names(folder) == [NAME]


def test_so_is_one_below_a_directory_that_others_can_write(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    store = directory(tmp_path / "open" / "sgpud")
    store.write(NAME, b"text")
    assert f"other users can write {tmp_path / 'open'}:" in store.problem
    (tmp_path / "open").chmod(0o1777)  # as /tmp: what is there already stays its owner's
    store.write(NAME, b"text")
    assert store.problem == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_and_directories_of_another_user_are_refused(tmp_path: Path) -> None:
    store = directory(tmp_path / "sgpud")
    store.write(NAME, b"text")
    os.chown(store.path(NAME), 12345, -1)
    with listening() as said:
        assert directory(store.directory).read(NAME) is None
    assert said.about("belongs to another user (uid 12345)")
    os.chown(store.directory, 12345, -1)
    store.write(NAME, b"text")
    assert f"{store.directory} belongs to another user (uid 12345)" in store.problem


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    left = [f".{NAME}.0123456789abcdef", ".gpus.json.fedcba9876543210"]
    others = [".hidden", NAME, f"{NAME}.corrupt", f".{NAME}.swp"]
    for name in (*left, *others):
        (tmp_path / name).touch()
    store = directory(tmp_path)
    store.read(NAME)
    assert names(tmp_path) == sorted([*left, *others])
    store.take_over()
    assert set(names(tmp_path)) & set(left) == set()
    assert ".hidden" in names(tmp_path)
    assert f".{NAME}.swp" in names(tmp_path)


# The checksum. -----------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_what_is_sealed_comes_back(content: bytes) -> None:
    assert unsealed(sealed(content)) == content


@given(st.binary(min_size=1, max_size=60), st.data())
def test_no_bit_flips_unnoticed(content: bytes, data: st.DataObject) -> None:
    text = bytearray(sealed(content))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] ^= 1 << data.draw(st.integers(0, 7))
    assert unsealed(bytes(text)) is None


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_fails_its_checksum_is_set_aside(tmp_path: Path, content: bytes) -> None:
    store = directory(tmp_path)
    store.path(NAME).write_bytes(content)
    with listening() as said:
        assert store.read(NAME) is None
    assert said.about("is corrupt (its checksum does not match); ignoring it")
    assert names(tmp_path) in ([NAME], [NAME, f"{NAME}.corrupt"])
    store.take_over()
    assert store.read(NAME) is None
    assert names(tmp_path) == [f"{NAME}.corrupt"]
    assert (tmp_path / f"{NAME}.corrupt").read_bytes() == content
