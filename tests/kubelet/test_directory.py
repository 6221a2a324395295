"""The plugin directory: its lock, its coming and going, and what is noticed in it."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import define, field

from sgpud.kubelet.directory import (
    CHECKPOINT,
    KUBELET_SOCKET,
    LOOK_EVERY,
    DirectoryObserver,
    PluginDirectory,
)
from sgpud.testing.folder_watches import FakeFolderWatcher
from tests.surroundings import FakeReactor, descriptors, listening, short_folder

NONCE = "0123abcd"
HOLDER = """
import fcntl, os, sys
held = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(held, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@define
class Bench:
    """A directory under watch, with a time and hints that the test moves."""

    path: Path
    clock: FakeReactor = field(factory=FakeReactor)
    told: list[str] = field(factory=list)
    sources: list[FakeFolderWatcher] = field(factory=list)
    made: list[PluginDirectory] = field(factory=list)

    def watch(self) -> PluginDirectory:
        def watcher(hint: Callable[[], None]) -> FakeFolderWatcher:
            self.sources.append(FakeFolderWatcher(hint))
            return self.sources[-1]

        tell = self.told.append
        events = DirectoryObserver(
            on_acquired=lambda: tell("ours"),
            on_lost=lambda: tell("lost"),
            on_standby=lambda: tell("waiting"),
            on_kubelet=lambda: tell("kubelet seen"),
            on_kubelet_gone=lambda: tell("kubelet gone"),
            on_checkpoint=lambda: tell("checkpoint"),
            on_plugin=lambda: tell("plugin"),
            on_stale_mount=lambda: tell("stuck"),
        )
        directory = PluginDirectory(self.path, NONCE, self.clock, events, watcher)
        self.made.append(directory)
        directory.start()
        return directory

    def since(self) -> list[str]:
        """What was told since the last question."""
        told = list(self.told)
        self.told.clear()
        return told

    def second(self) -> list[str]:
        """What a look without a hint finds."""
        self.clock.advance(LOOK_EVERY)
        return self.since()

    def hint(self) -> list[str]:
        """What a look after a hint finds."""
        self.sources[-1].touch(self.path)
        self.clock.advance(0)
        return self.since()

    def kubelet(self) -> None:
        """A new kubelet's socket."""
        self.bind(KUBELET_SOCKET)

    def bind(self, name: str) -> None:
        """A new socket of this name."""
        (self.path / name).unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(self.path / name))


@pytest.fixture
def bench() -> Iterator[Bench]:
    with short_folder() as folder:
        path = folder / "plugins"
        path.mkdir()
        made = Bench(path)
        yield made
        for directory in made.made:
            directory.stop_looking()
            directory.release()


@pytest.fixture
def ours(bench: Bench) -> Bench:
    """A directory that is ours, with no kubelet in it."""
    bench.watch()
    assert bench.since() == ["ours", "checkpoint"]
    return bench


def serving(directory: PluginDirectory) -> bool:
    return directory.ours


def locked(path: Path) -> bool:
    """Whether somebody has the lock, as another process sees it."""
    other = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(other)


# Taking it. --------------------------------------------------------------------------------------


def test_a_free_directory_is_locked_at_once(bench: Bench) -> None:
    directory = bench.watch()
    assert serving(directory)
    assert directory.present
    assert bench.told.count("ours") == 1
    assert locked(bench.path)


def test_no_file_is_made_in_it(ours: Bench) -> None:
    assert list(ours.path.iterdir()) == []


def test_the_lock_is_released_explicitly_not_by_stopping(bench: Bench) -> None:
    directory = bench.watch()
    directory.stop_looking()
    assert locked(bench.path)
    directory.release()
    assert not locked(bench.path)
    assert not serving(directory)
    directory.release()


def test_a_second_instance_gets_the_lock_when_the_first_releases_it(bench: Bench) -> None:
    first = bench.watch()
    bench.since()
    second = bench.watch()
    assert not serving(second)
    assert bench.since()[0] == "waiting"
    first.stop_looking()
    first.release()
    bench.clock.let_in()
    assert serving(second)
    assert bench.since()[0] == "ours"


def test_a_second_instance_gets_the_lock_when_the_first_is_killed(bench: Bench) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(bench.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    directory = bench.watch()
    assert not serving(directory)
    assert bench.second() == ["waiting", "checkpoint"]
    other.kill()
    other.communicate(timeout=20)
    bench.clock.let_in()
    assert serving(directory)


def test_a_standby_does_not_report_the_kubelet(bench: Bench) -> None:
    bench.kubelet()
    held = os.open(bench.path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    bench.watch()
    bench.kubelet()
    assert "kubelet seen" not in [*bench.second(), *bench.hint()]
    os.close(held)
    bench.clock.let_in()
    assert bench.since() == ["ours", "kubelet seen"]


def test_a_standby_that_stops_does_not_take_the_lock(bench: Bench) -> None:
    held = os.open(bench.path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    directory = bench.watch()
    directory.stop_looking()
    directory.release()
    os.close(held)
    bench.clock.let_in()
    assert not serving(directory)
    assert "ours" not in bench.told


def test_a_lock_on_a_replaced_directory_is_discarded(bench: Bench) -> None:
    held = os.open(bench.path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    directory = bench.watch()
    bench.path.rename(bench.path.with_name("old"))
    bench.path.mkdir()
    assert "ours" in bench.second()
    os.close(held)
    bench.clock.let_in()
    assert bench.since() == []
    assert serving(directory)
    assert not locked(bench.path.with_name("old"))


# Its coming and going. ---------------------------------------------------------------------------


def test_a_directory_that_appears_later_is_locked(bench: Bench) -> None:
    bench.path.rmdir()
    directory = bench.watch()
    assert (directory.ours, directory.present) == (False, False)
    assert "ours" not in bench.second()
    assert bench.path.parent in bench.sources[-1].folders
    bench.path.mkdir()
    bench.sources[-1].touch(bench.path.parent)
    bench.clock.advance(0)
    assert bench.since()[:1] == ["ours"]
    assert directory.present


def test_the_nearest_existing_parent_is_watched(bench: Bench) -> None:
    shutil.rmtree(bench.path)
    bench.path = bench.path / "deep" / "below"
    bench.watch()
    assert bench.sources[-1].folders == {bench.path.parents[2]}
    bench.path.mkdir(parents=True)
    assert "ours" in bench.second()
    assert bench.path in bench.sources[-1].folders


def test_a_deleted_directory_is_lost_and_its_successor_locked(ours: Bench) -> None:
    (directory,) = ours.made
    ours.path.rmdir()
    assert ours.second()[:1] == ["lost"]
    assert (directory.ours, directory.present) == (False, False)
    assert ours.second() == []
    ours.path.mkdir()
    assert "ours" in ours.second()
    assert locked(ours.path)


def test_a_replaced_directory_is_lost_and_locked_in_one_check(ours: Bench) -> None:
    old = ours.path.with_name("old")
    ours.path.rename(old)
    ours.path.mkdir()
    assert ours.hint()[:2] == ["lost", "ours"]
    assert locked(ours.path)
    assert not locked(old)


def test_a_replacement_locked_by_another_instance_is_waited_for(ours: Bench) -> None:
    ours.path.rename(ours.path.with_name("old"))
    ours.path.mkdir()
    held = os.open(ours.path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert ours.second()[:2] == ["lost", "waiting"]
    os.close(held)
    ours.clock.let_in()
    assert "ours" in ours.since()


def test_a_changed_symbolic_link_is_a_replaced_directory(bench: Bench) -> None:
    first, second = bench.path.with_name("first"), bench.path.with_name("second")
    first.mkdir()
    second.mkdir()
    bench.path.rmdir()
    bench.path.symlink_to(first)
    bench.watch()
    bench.since()
    bench.path.unlink()
    bench.path.symlink_to(second)
    assert bench.second()[:2] == ["lost", "ours"]
    assert locked(second)


def test_a_mount_of_a_deleted_directory_is_stuck(bench: Bench) -> None:
    # As a bind mount shows it: a path that still leads to a directory without any name.
    kept = os.open(bench.path, os.O_RDONLY)
    bench.path = Path(f"/proc/self/fd/{kept}")
    directory = bench.watch()
    assert serving(directory)
    bench.since()
    bench.path.resolve().rmdir()
    assert bench.second() == ["lost", "stuck"]
    assert not serving(directory)
    os.close(kept)


def test_a_file_instead_of_the_directory_is_logged_once_and_recovered_from(bench: Bench) -> None:
    bench.path.rmdir()
    bench.path.touch()
    with listening() as said:
        bench.watch()
        for _ in range(5):
            assert "ours" not in bench.second()
    assert len(said.about(f"Cannot serve {bench.path}")) == 1
    bench.path.unlink()
    bench.path.mkdir()
    assert "ours" in bench.second()


def test_repeated_starts_leak_no_descriptor(ours: Bench) -> None:
    before = descriptors()
    for _ in range(20):
        ours.path.rmdir()
        assert "lost" in ours.second()
        ours.path.mkdir()
        assert "ours" in ours.second()
    assert descriptors() <= before


# What happens in it. -----------------------------------------------------------------------------


def test_a_running_kubelet_is_seen_after_the_lock_is_held(bench: Bench) -> None:
    bench.kubelet()
    bench.watch()
    told = bench.since()
    assert told.index("ours") < told.index("kubelet seen")
    assert told.count("kubelet seen") == 1


def test_a_kubelet_that_appears_is_reported_once(ours: Bench) -> None:
    ours.kubelet()
    assert ours.hint() == ["kubelet seen"]
    assert ours.hint() == []
    assert ours.second() == []


def test_a_kubelet_that_restarts_between_two_checks_is_noticed(ours: Bench) -> None:
    for _ in range(5):
        ours.kubelet()  # often with the inode number of the one before
        assert ours.second() == ["kubelet seen"]


def test_a_kubelet_that_disappears_is_reported(ours: Bench) -> None:
    ours.kubelet()
    ours.second()
    (ours.path / KUBELET_SOCKET).unlink()
    assert ours.hint() == ["kubelet gone"]
    assert ours.second() == []
    ours.kubelet()
    assert ours.second() == ["kubelet seen"]


def test_a_written_checkpoint_is_reported(ours: Bench) -> None:
    file = ours.path / CHECKPOINT
    for text in ("a", "b"):
        file.with_suffix(".new").write_text(text)
        file.with_suffix(".new").rename(file)
        assert ours.hint() == ["checkpoint"]
        assert ours.second() == []
    file.unlink()
    assert ours.hint() == ["checkpoint"]


def test_the_checkpoint_is_reported_to_a_standby_too(bench: Bench) -> None:
    held = os.open(bench.path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    bench.watch()
    bench.since()
    (bench.path / CHECKPOINT).write_text("{}")
    assert bench.hint() == ["checkpoint"]
    os.close(held)
    bench.clock.let_in()


def test_other_files_are_not_reported(ours: Bench) -> None:
    (ours.path / "sgpud-0123.sock").touch()
    (ours.path / "other.sock").touch()
    assert ours.hint() == []


def test_a_socket_of_another_plugin_is_reported_once(ours: Bench) -> None:
    ours.bind("nvidia.sock")
    assert ours.hint() == ["plugin"]
    assert ours.hint() == []
    ours.bind("nvidia.sock")
    assert ours.hint() == ["plugin"]
    (ours.path / "nvidia.sock").unlink()
    assert ours.hint() == []
    ours.bind(f"sgpud-0123-{NONCE}-1.sock")
    assert ours.hint() == []


def test_plugins_that_were_there_before_are_not_reported(bench: Bench) -> None:
    bench.bind("nvidia.sock")
    bench.watch()
    assert "plugin" not in bench.since()


def test_a_burst_of_hints_is_one_check(ours: Bench) -> None:
    ours.kubelet()
    for _ in range(50):
        ours.sources[-1].touch(ours.path)
    assert len(ours.clock.getDelayedCalls()) == 1
    ours.clock.advance(0)
    assert ours.since() == ["kubelet seen"]
    assert len(ours.clock.getDelayedCalls()) == 1


def test_nothing_is_reported_after_stop(ours: Bench) -> None:
    (directory,) = ours.made
    ours.kubelet()
    ours.sources[-1].touch(ours.path)
    directory.stop_looking()
    assert ours.sources[-1].folders == frozenset()
    ours.clock.pump([LOOK_EVERY] * 3)
    assert ours.since() == []
    assert ours.clock.getDelayedCalls() == []
