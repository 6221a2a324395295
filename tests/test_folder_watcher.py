"""One contract for folder watchers: inotify, and the fake that a test triggers by hand."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import Any, Protocol

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from sgpud.folder_watcher import FolderWatcher
from sgpud.testing.folder_watches import FakeFolderWatcher
from tests.surroundings import WITHIN, descriptors, listening

ITERATION = 0.001
"""Seconds that an iteration of the loop takes."""


class Source(Protocol):
    def watch(self, folders: Iterable[Path]) -> None: ...
    def close(self) -> None: ...


class Loop(Clock):
    """As much of a reactor as inotify needs: readers and delayed calls."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def removeWriter(self, writer: Any) -> None:
        """Nothing is ever written."""

    def callLater(self, delay: float, callable: Any, *args: Any, **rest: Any) -> Any:  # noqa: A002
        # As in the reactor: never in the iteration that scheduled it.
        return super().callLater(delay + ITERATION, callable, *args, **rest)

    def iterate(self, seconds: float = 0.0) -> bool:
        """Read what there is to read, and run what is due; False where there was nothing."""
        ready, _, _ = select(list(self.readers), [], [], seconds)
        for reader in ready:
            reader.doRead()
        due = bool(self.getDelayedCalls())
        self.advance(ITERATION)
        return bool(ready) or due


@define
class Bench:
    """A folder watcher, and how events in a folder reach it."""

    source: Source
    happens: Callable[[Path], None]
    """Called after something has happened in a folder."""
    settle: Callable[[], None]
    events: list[None] = field(factory=list)

    def notified(self, folder: Path) -> bool:
        """Whether events came for this folder since the last call."""
        self.happens(folder)
        self.settle()
        count = len(self.events)
        self.events.clear()
        return count > 0


@contextmanager
def with_inotify() -> Iterator[Bench]:
    loop: Any = Loop()
    events: list[None] = []
    before = descriptors()
    source = FolderWatcher(loop, lambda: events.append(None))

    def settle() -> None:
        # inotify queues an event before the call that caused it returns: nothing to wait for.
        while loop.iterate():
            pass

    yield Bench(source, lambda _: None, settle, events)
    source.close()
    settle()
    assert loop.readers == []
    assert loop.getDelayedCalls() == []
    assert descriptors() <= before


@contextmanager
def in_memory() -> Iterator[Bench]:
    events: list[None] = []
    source = FakeFolderWatcher(lambda: events.append(None))
    yield Bench(source, source.touch, lambda: None, events)


@pytest.fixture(params=[with_inotify, in_memory])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with request.param() as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "watched"
    made.mkdir()
    return made


# The contract. -----------------------------------------------------------------------------------


def test_no_events_before_a_folder_is_watched(bench: Bench, folder: Path) -> None:
    (folder / "a").touch()
    assert not bench.notified(folder)


def test_changes_in_a_watched_folder_are_events(bench: Bench, folder: Path) -> None:
    bench.source.watch([folder])
    (folder / "a").write_text("made")
    assert bench.notified(folder)
    (folder / "a").write_text("changed")
    assert bench.notified(folder)
    (folder / "a").chmod(0o600)
    assert bench.notified(folder)
    (folder / "a").rename(folder / "b")
    assert bench.notified(folder)
    (folder / "b").unlink()
    assert bench.notified(folder)
    (folder / "link").symlink_to("nowhere")
    assert bench.notified(folder)


def test_changes_elsewhere_are_not(bench: Bench, folder: Path, tmp_path: Path) -> None:
    bench.source.watch([folder])
    (tmp_path / "beside").touch()
    assert not bench.notified(tmp_path)


def test_exactly_the_folders_named_last_are_watched(
    bench: Bench, folder: Path, tmp_path: Path
) -> None:
    bench.source.watch([folder, tmp_path])
    (tmp_path / "a").touch()
    assert bench.notified(tmp_path)
    bench.source.watch([folder])
    (tmp_path / "b").touch()
    assert not bench.notified(tmp_path)
    (folder / "b").touch()
    assert bench.notified(folder)
    bench.source.watch([])
    (folder / "c").touch()
    assert not bench.notified(folder)


def test_watching_the_same_folders_again_changes_nothing(bench: Bench, folder: Path) -> None:
    for _ in range(100):
        bench.source.watch([folder])
    (folder / "a").touch()
    assert bench.notified(folder)
    assert not bench.notified(folder / "nothing happened")


def test_a_missing_folder_is_skipped(bench: Bench, folder: Path) -> None:
    absent = folder / "absent"
    bench.source.watch([absent, folder])
    absent.mkdir()
    assert bench.notified(folder)
    (absent / "a").touch()
    assert not bench.notified(absent)
    bench.source.watch([absent, folder])
    (absent / "b").touch()
    assert bench.notified(absent)


def test_no_events_after_close(bench: Bench, folder: Path) -> None:
    bench.source.watch([folder])
    bench.source.close()
    (folder / "a").touch()
    assert not bench.notified(folder)
    bench.source.close()


# Only inotify. -----------------------------------------------------------------------------------


@pytest.fixture
def real() -> Iterator[Bench]:
    with with_inotify() as made:
        yield made


def test_deleting_a_folder_is_an_event(real: Bench, folder: Path) -> None:
    real.source.watch([folder])
    folder.rmdir()
    assert real.notified(folder)


def test_moving_a_folder_is_an_event(real: Bench, folder: Path) -> None:
    real.source.watch([folder])
    folder.rename(folder.with_name("moved"))
    assert real.notified(folder)


@pytest.mark.parametrize("looked_between", [False, True])
def test_a_recreated_folder_is_watched_again(
    real: Bench, folder: Path, *, looked_between: bool
) -> None:
    # It often reuses the inode number, which does not identify a folder.
    for _ in range(5):
        real.source.watch([folder])
        folder.rmdir()
        real.settle()
        if looked_between:
            real.source.watch([folder])
        folder.mkdir()
        real.source.watch([folder])
        real.settle()
        real.events.clear()
        (folder / "a").touch()
        assert real.notified(folder)
        (folder / "a").unlink()


def test_deleting_a_folder_closes_its_descriptor_once(folder: Path) -> None:
    loop: Any = Loop()

    def look() -> None:
        loop.callLater(0, lambda: source.watch([folder]))

    source = FolderWatcher(loop, look)
    source.watch([folder])
    (number,) = (reader.fileno() for reader in loop.readers)
    folder.rmdir()
    assert loop.iterate(WITHIN)
    # The next file opened reuses the number; a second close would close that file.
    reused = os.open(os.devnull, os.O_RDONLY)
    assert reused == number
    while loop.iterate():
        pass
    source.close()
    assert os.fstat(reused)
    os.close(reused)


def test_a_failed_watch_is_logged_once_and_retried(folder: Path) -> None:
    with with_inotify() as bench, listening() as logged:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            for _ in range(5):
                bench.source.watch([folder])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert len(logged.about(f"Cannot watch {folder} with inotify")) == 1
        bench.source.watch([folder])
        (folder / "a").touch()
        assert bench.notified(folder)
