"""Watching the configuration file: by content, through every link, without ever blocking."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from sgpud.node.config_file_watcher import LARGEST, POLL_EVERY, SETTLE, ConfigFileWatcher
from sgpud.testing.folder_watches import FakeFolderWatcher


@define
class Bench:
    """A watched file, with a clock and events that the test controls."""

    file: Path
    clock: Clock = field(factory=Clock)
    sources: list[FakeFolderWatcher] = field(factory=list)
    changes: int = 0
    watcher: ConfigFileWatcher = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.watcher = ConfigFileWatcher(self.file, self.clock, self._watcher, self._changed)

    def _watcher(self, on_event: Callable[[], None]) -> FakeFolderWatcher:
        self.sources.append(FakeFolderWatcher(on_event))
        return self.sources[-1]

    def _changed(self) -> None:
        self.changes += 1

    @property
    def watched(self) -> set[Path]:
        return set(self.sources[0].folders)

    def event(self, folder: Path | None = None) -> int:
        """How many changes were reported after an event in a folder."""
        before = self.changes
        self.sources[0].touch(folder or self.file.parent)
        self.clock.advance(SETTLE)
        return self.changes - before

    def poll(self) -> int:
        """How many changes a poll reports."""
        before = self.changes
        self.clock.advance(POLL_EVERY)
        return self.changes - before


def watching(file: Path) -> Bench:
    bench = Bench(file)
    bench.watcher.start()
    return bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    file = tmp_path / "sgpud.toml"
    file.write_text("one")
    return watching(file)


def test_an_unchanged_file_is_not_reported(bench: Bench) -> None:
    assert (bench.event(), bench.poll(), bench.poll()) == (0, 0, 0)


def test_new_content_is_reported_once(bench: Bench) -> None:
    bench.file.write_text("two")
    assert bench.event() == 1
    assert (bench.event(), bench.poll()) == (0, 0)


def test_same_content_with_another_time_owner_or_inode_is_not_reported(bench: Bench) -> None:
    bench.file.touch()
    bench.file.chmod(0o600)
    assert bench.event() == 0
    other = bench.file.with_name("other")
    other.write_text("one")
    other.replace(bench.file)
    assert bench.event() == 0


def test_without_an_event_polling_finds_the_change(bench: Bench) -> None:
    bench.file.write_text("two")
    assert bench.poll() == 1


def test_it_waits_for_an_editor_that_writes_in_steps(bench: Bench) -> None:
    for text in ("t", "tw", "two"):
        bench.file.write_text(text)
        bench.sources[0].touch(bench.file.parent)
        bench.clock.advance(SETTLE / 2)
    assert bench.changes == 0
    bench.clock.advance(SETTLE / 2)
    assert bench.changes == 1


def test_removing_and_restoring_the_file_are_two_changes(bench: Bench) -> None:
    bench.file.unlink()
    assert bench.event() == 1
    assert bench.event() == 0
    bench.file.write_text("one")
    assert bench.event() == 1


def test_a_change_before_the_start_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "sgpud.toml"
    file.write_text("one")
    bench = Bench(file)
    file.write_text("two")
    bench.watcher.start()
    assert bench.poll() == 1


# ConfigMaps. -------------------------------------------------------------------------------------


def config_map(folder: Path, version: str, text: str) -> None:
    """Write a version as the kubelet does: a new folder, then one link swapped."""
    made = folder / f"..{version}"
    made.mkdir()
    (made / "sgpud.toml").write_text(text)
    link = folder / "..data.new"
    link.symlink_to(made.name)
    link.replace(folder / "..data")


def test_a_config_map_is_watched_through_its_links(tmp_path: Path) -> None:
    config_map(tmp_path, "2026_01", "one")
    file = tmp_path / "sgpud.toml"
    file.symlink_to("..data/sgpud.toml")
    bench = watching(file)
    assert tmp_path in bench.watched
    config_map(tmp_path, "2026_02", "two")
    assert bench.event() == 1
    config_map(tmp_path, "2026_03", "two")
    assert bench.event() == 0
    (tmp_path / "..2026_03" / "sgpud.toml").write_text("three")
    assert bench.event(tmp_path / "..data") == 1


def test_the_folder_of_every_link_is_watched(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    (folders[2] / "real").write_text("one")
    (folders[1] / "link").symlink_to("../c/real")
    (folders[0] / "link").symlink_to(folders[1] / "link")
    bench = watching(folders[0] / "link")
    assert {folder.resolve() for folder in bench.watched} == set(folders)
    (folders[2] / "other").write_text("two")
    (folders[1] / "link").unlink()
    (folders[1] / "link").symlink_to("../c/other")
    assert bench.event(folders[1]) == 1


def test_a_dangling_link_is_watched_until_its_target_exists(tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    file = tmp_path / "sgpud.toml"
    file.symlink_to("later/sgpud.toml")
    bench = watching(file)
    assert bench.watched == {tmp_path, tmp_path / "later"}
    (tmp_path / "later" / "sgpud.toml").write_text("one")
    assert bench.event(tmp_path / "later") == 1


# Not a regular file. -----------------------------------------------------------------------------


def test_a_symlink_loop_terminates(tmp_path: Path) -> None:
    file = tmp_path / "sgpud.toml"
    file.symlink_to(file)
    bench = watching(file)
    assert bench.poll() == 0


def test_polling_goes_on_when_a_link_cannot_be_followed(tmp_path: Path) -> None:
    file = tmp_path / "sgpud.toml"
    file.symlink_to("x" * 300)
    bench = watching(file)
    assert bench.poll() == 0
    file.unlink()
    file.write_text("one")
    assert bench.poll() == 1


@pytest.mark.timeout(20)
def test_a_named_pipe_does_not_block(bench: Bench) -> None:
    bench.file.unlink()
    os.mkfifo(bench.file)
    assert bench.event() == 1
    assert bench.poll() == 0


def test_a_file_that_is_too_large_is_not_read(bench: Bench) -> None:
    with bench.file.open("wb") as file:
        file.truncate(LARGEST + 1)
    assert bench.event() == 1
    with bench.file.open("ab") as file:
        file.write(b"more")
    assert bench.event() == 0


def test_nothing_is_watched_after_stop(bench: Bench) -> None:
    bench.file.write_text("two")
    bench.sources[0].touch(bench.file.parent)
    bench.watcher.stop()
    bench.watcher.stop()
    bench.clock.advance(10 * POLL_EVERY)
    assert bench.changes == 0
    assert bench.watched == set()
    assert bench.clock.getDelayedCalls() == []


def test_a_callback_that_raises_is_called_for_the_next_change(tmp_path: Path) -> None:
    file = tmp_path / "sgpud.toml"
    file.write_text("one")
    clock = Clock()
    contents: list[str] = []

    def changed() -> None:
        contents.append(file.read_text())
        if len(contents) == 1:
            raise ValueError("two")

    watcher = ConfigFileWatcher(file, clock, FakeFolderWatcher, changed)
    watcher.start()
    file.write_text("two")
    with pytest.raises(ValueError, match="two"):
        clock.advance(POLL_EVERY)
    file.write_text("three")
    clock.advance(POLL_EVERY)
    assert contents == ["two", "three"]


def test_events_that_never_end_delay_a_change_by_a_second(bench: Bench) -> None:
    for step in range(400):
        bench.file.write_text(str(step // 100))
        bench.sources[0].touch(bench.file.parent)
        bench.clock.advance(0.04)
    assert bench.changes == 4
