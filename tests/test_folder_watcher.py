"""One contract for sources of hints: inotify, and the double that a test hints at by hand."""

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

TURN = 0.001
"""Seconds that a turn of the loop takes."""


class Source(Protocol):
    def watch(self, folders: Iterable[Path]) -> None: ...
    def close(self) -> None: ...


class Loop(Clock):
    """As much of a reactor as inotify needs: descriptors to read from, and calls for later."""

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
        # As the reactor has it: never in the turn that asked for it.
        return super().callLater(delay + TURN, callable, *args, **rest)

    def turn(self, seconds: float = 0.0) -> bool:
        """Read what there is to read, and run what is due; False where there was nothing."""
        ready, _, _ = select(list(self.readers), [], [], seconds)
        for reader in ready:
            reader.doRead()
        due = bool(self.getDelayedCalls())
        self.advance(TURN)
        return bool(ready) or due


@define
class Bench:
    """A source of hints, and how what happens in a folder gets to it."""

    source: Source
    happens: Callable[[Path], None]
    """Called after something has happened in a folder."""
    settle: Callable[[], None]
    hinted: list[None] = field(factory=list)

    def watcher(self, folder: Path) -> bool:
        """Whether hints came for what has happened in this folder since the last question."""
        self.happens(folder)
        self.settle()
        count = len(self.hinted)
        self.hinted.clear()
        return count > 0


@contextmanager
def with_inotify() -> Iterator[Bench]:
    loop: Any = Loop()
    hinted: list[None] = []
    before = descriptors()
    source = FolderWatcher(loop, lambda: hinted.append(None))

    def settle() -> None:
        # inotify queues an event before the call that caused it returns: nothing to wait for.
        while loop.turn():
            pass

    yield Bench(source, lambda _: None, settle, hinted)
    source.close()
    settle()
    assert loop.readers == []
    assert loop.getDelayedCalls() == []
    assert descriptors() <= before


@contextmanager
def in_memory() -> Iterator[Bench]:
    hinted: list[None] = []
    source = FakeFolderWatcher(lambda: hinted.append(None))
    yield Bench(source, source.touch, lambda: None, hinted)


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


def test_nothing_is_hinted_before_there_is_anything_to_watch(bench: Bench, folder: Path) -> None:
    (folder / "a").touch()
    assert not bench.watcher(folder)


def test_what_happens_in_a_watched_folder_is_hinted(bench: Bench, folder: Path) -> None:
    bench.source.watch([folder])
    (folder / "a").write_text("made")
    assert bench.watcher(folder)
    (folder / "a").write_text("changed")
    assert bench.watcher(folder)
    (folder / "a").chmod(0o600)
    assert bench.watcher(folder)
    (folder / "a").rename(folder / "b")
    assert bench.watcher(folder)
    (folder / "b").unlink()
    assert bench.watcher(folder)
    (folder / "link").symlink_to("nowhere")
    assert bench.watcher(folder)


def test_what_happens_elsewhere_is_not(bench: Bench, folder: Path, tmp_path: Path) -> None:
    bench.source.watch([folder])
    (tmp_path / "beside").touch()
    assert not bench.watcher(tmp_path)


def test_exactly_the_folders_named_last_are_watched(
    bench: Bench, folder: Path, tmp_path: Path
) -> None:
    bench.source.watch([folder, tmp_path])
    (tmp_path / "a").touch()
    assert bench.watcher(tmp_path)
    bench.source.watch([folder])
    (tmp_path / "b").touch()
    assert not bench.watcher(tmp_path)
    (folder / "b").touch()
    assert bench.watcher(folder)
    bench.source.watch([])
    (folder / "c").touch()
    assert not bench.watcher(folder)


def test_the_same_folders_again_change_nothing(bench: Bench, folder: Path) -> None:
    for _ in range(100):
        bench.source.watch([folder])
    (folder / "a").touch()
    assert bench.watcher(folder)
    assert not bench.watcher(folder / "nothing happened")


def test_a_folder_that_is_not_there_is_left_out(bench: Bench, folder: Path) -> None:
    absent = folder / "absent"
    bench.source.watch([absent, folder])
    absent.mkdir()
    assert bench.watcher(folder)
    (absent / "a").touch()
    assert not bench.watcher(absent)
    bench.source.watch([absent, folder])
    (absent / "b").touch()
    assert bench.watcher(absent)


def test_after_the_close_nothing_is_hinted(bench: Bench, folder: Path) -> None:
    bench.source.watch([folder])
    bench.source.close()
    (folder / "a").touch()
    assert not bench.watcher(folder)
    bench.source.close()


# What only inotify can do. -----------------------------------------------------------------------


@pytest.fixture
def real() -> Iterator[Bench]:
    with with_inotify() as made:
        yield made


def test_a_folder_that_is_deleted_is_hinted(real: Bench, folder: Path) -> None:
    real.source.watch([folder])
    folder.rmdir()
    assert real.watcher(folder)


def test_a_folder_that_is_moved_is_hinted(real: Bench, folder: Path) -> None:
    real.source.watch([folder])
    folder.rename(folder.with_name("moved"))
    assert real.watcher(folder)


@pytest.mark.parametrize("looked_between", [False, True])
def test_a_folder_made_anew_is_watched_anew(
    real: Bench, folder: Path, *, looked_between: bool
) -> None:
    # Often with the inode number of the one before: a number is no identity.
    for _ in range(5):
        real.source.watch([folder])
        folder.rmdir()
        real.settle()
        if looked_between:
            real.source.watch([folder])
        folder.mkdir()
        real.source.watch([folder])
        real.settle()
        real.hinted.clear()
        (folder / "a").touch()
        assert real.watcher(folder)
        (folder / "a").unlink()


def test_the_end_of_a_folder_closes_its_descriptor_once(folder: Path) -> None:
    loop: Any = Loop()

    def look() -> None:
        loop.callLater(0, lambda: source.watch([folder]))

    source = FolderWatcher(loop, look)
    source.watch([folder])
    (number,) = (reader.fileno() for reader in loop.readers)
    folder.rmdir()
    assert loop.turn(WITHIN)
    # Whatever is opened next gets the number; a second close would be of this one.
    taken = os.open(os.devnull, os.O_RDONLY)
    assert taken == number
    while loop.turn():
        pass
    source.close()
    assert os.fstat(taken)
    os.close(taken)


def test_no_room_for_a_watch_is_said_once_and_made_up_for_later(folder: Path) -> None:
    with with_inotify() as bench, listening() as said:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            for _ in range(5):
                bench.source.watch([folder])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert len(said.about(f"No inotify on {folder}")) == 1
        bench.source.watch([folder])
        (folder / "a").touch()
        assert bench.watcher(folder)
