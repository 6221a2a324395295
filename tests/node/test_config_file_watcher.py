"""Following the configuration file: by its content, through every link, never waiting for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from sgpud.node.config_file_watcher import LARGEST, LOOK_EVERY, SETTLE, ConfigFileWatcher
from sgpud.testing.folder_watches import FakeFolderWatcher


@define
class Bench:
    """A file that is followed, with time and hints that the test moves."""

    file: Path
    clock: Clock = field(factory=Clock)
    sources: list[FakeFolderWatcher] = field(factory=list)
    changes: int = 0
    follow: ConfigFileWatcher = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.follow = ConfigFileWatcher(self.file, self.clock, self._watcher, self._changed)

    def _watcher(self, hint: Callable[[], None]) -> FakeFolderWatcher:
        self.sources.append(FakeFolderWatcher(hint))
        return self.sources[-1]

    def _changed(self) -> None:
        self.changes += 1

    @property
    def watched(self) -> set[Path]:
        return set(self.sources[0].folders)

    def hint(self, folder: Path | None = None) -> int:
        """How many changes were told after something happened in a folder."""
        before = self.changes
        self.sources[0].touch(folder or self.file.parent)
        self.clock.advance(SETTLE)
        return self.changes - before

    def look(self) -> int:
        """How many changes a look without a hint tells."""
        before = self.changes
        self.clock.advance(LOOK_EVERY)
        return self.changes - before


def following(file: Path) -> Bench:
    bench = Bench(file)
    bench.follow.start()
    return bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    file = tmp_path / "sgpud.toml"
    file.write_text("one")
    return following(file)


def test_a_file_that_stays_is_no_change(bench: Bench) -> None:
    assert (bench.hint(), bench.look(), bench.look()) == (0, 0, 0)


def test_another_content_is_a_change_once(bench: Bench) -> None:
    bench.file.write_text("two")
    assert bench.hint() == 1
    assert (bench.hint(), bench.look()) == (0, 0)


def test_another_time_owner_or_inode_of_the_same_content_is_none(bench: Bench) -> None:
    bench.file.touch()
    bench.file.chmod(0o600)
    assert bench.hint() == 0
    other = bench.file.with_name("other")
    other.write_text("one")
    other.replace(bench.file)
    assert bench.hint() == 0


def test_without_a_hint_a_change_is_found_by_time(bench: Bench) -> None:
    bench.file.write_text("two")
    assert bench.look() == 1


def test_an_editor_that_writes_in_steps_is_waited_for(bench: Bench) -> None:
    for text in ("t", "tw", "two"):
        bench.file.write_text(text)
        bench.sources[0].touch(bench.file.parent)
        bench.clock.advance(SETTLE / 2)
    assert bench.changes == 0
    bench.clock.advance(SETTLE / 2)
    assert bench.changes == 1


def test_a_file_that_goes_and_comes_back_is_told_as_it_is(bench: Bench) -> None:
    bench.file.unlink()
    assert bench.hint() == 1
    assert bench.hint() == 0
    bench.file.write_text("one")
    assert bench.hint() == 1


def test_a_change_before_the_start_is_found(tmp_path: Path) -> None:
    file = tmp_path / "sgpud.toml"
    file.write_text("one")
    bench = Bench(file)
    file.write_text("two")
    bench.follow.start()
    assert bench.look() == 1


# ConfigMaps. -------------------------------------------------------------------------------------


def config_map(folder: Path, version: str, text: str) -> None:
    """Write a version as the kubelet does: a new folder, then one link swapped."""
    made = folder / f"..{version}"
    made.mkdir()
    (made / "sgpud.toml").write_text(text)
    link = folder / "..data.new"
    link.symlink_to(made.name)
    link.replace(folder / "..data")


def test_a_config_map_is_followed_through_its_links(tmp_path: Path) -> None:
    config_map(tmp_path, "2026_01", "one")
    file = tmp_path / "sgpud.toml"
    file.symlink_to("..data/sgpud.toml")
    bench = following(file)
    assert tmp_path in bench.watched
    config_map(tmp_path, "2026_02", "two")
    assert bench.hint() == 1
    config_map(tmp_path, "2026_03", "two")
    assert bench.hint() == 0
    (tmp_path / "..2026_03" / "sgpud.toml").write_text("three")
    assert bench.hint(tmp_path / "..data") == 1


def test_the_folder_of_every_link_is_watched(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    (folders[2] / "real").write_text("one")
    (folders[1] / "link").symlink_to("../c/real")
    (folders[0] / "link").symlink_to(folders[1] / "link")
    bench = following(folders[0] / "link")
    assert {folder.resolve() for folder in bench.watched} == set(folders)
    (folders[2] / "other").write_text("two")
    (folders[1] / "link").unlink()
    (folders[1] / "link").symlink_to("../c/other")
    assert bench.hint(folders[1]) == 1


def test_a_link_to_nothing_is_followed_until_it_leads_somewhere(tmp_path: Path) -> None:
    (tmp_path / "later").mkdir()
    file = tmp_path / "sgpud.toml"
    file.symlink_to("later/sgpud.toml")
    bench = following(file)
    assert bench.watched == {tmp_path, tmp_path / "later"}
    (tmp_path / "later" / "sgpud.toml").write_text("one")
    assert bench.hint(tmp_path / "later") == 1


# What is no file. --------------------------------------------------------------------------------


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    file = tmp_path / "sgpud.toml"
    file.symlink_to(file)
    bench = following(file)
    assert bench.look() == 0


def test_a_link_that_cannot_be_followed_stops_nothing(tmp_path: Path) -> None:
    file = tmp_path / "sgpud.toml"
    file.symlink_to("x" * 300)
    bench = following(file)
    assert bench.look() == 0
    file.unlink()
    file.write_text("one")
    assert bench.look() == 1


@pytest.mark.timeout(20)
def test_a_pipe_in_its_place_blocks_nobody(bench: Bench) -> None:
    bench.file.unlink()
    os.mkfifo(bench.file)
    assert bench.hint() == 1
    assert bench.look() == 0


def test_a_file_beyond_all_size_is_not_read(bench: Bench) -> None:
    with bench.file.open("wb") as file:
        file.truncate(LARGEST + 1)
    assert bench.hint() == 1
    with bench.file.open("ab") as file:
        file.write(b"more")
    assert bench.hint() == 0


def test_after_the_stop_nothing_is_followed(bench: Bench) -> None:
    bench.file.write_text("two")
    bench.sources[0].touch(bench.file.parent)
    bench.follow.stop()
    bench.follow.stop()
    bench.clock.advance(10 * LOOK_EVERY)
    assert bench.changes == 0
    assert bench.watched == set()
    assert bench.clock.getDelayedCalls() == []


def test_whoever_hears_of_a_change_may_fail_and_hears_of_the_next(tmp_path: Path) -> None:
    file = tmp_path / "sgpud.toml"
    file.write_text("one")
    clock = Clock()
    heard: list[str] = []

    def changed() -> None:
        heard.append(file.read_text())
        if len(heard) == 1:
            raise ValueError("two")

    follow = ConfigFileWatcher(file, clock, FakeFolderWatcher, changed)
    follow.start()
    file.write_text("two")
    with pytest.raises(ValueError, match="two"):
        clock.advance(LOOK_EVERY)
    file.write_text("three")
    clock.advance(LOOK_EVERY)
    assert heard == ["two", "three"]
