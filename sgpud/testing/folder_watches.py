"""A folder watcher without inotify: the test triggers its hints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path


class FakeFolderWatcher:
    """A folder watcher like `sgpud.folder_watcher.FolderWatcher`, triggered by hand."""

    def __init__(self, on_event: Callable[[], None]) -> None:
        """`on_event` is called for each change in a watched folder."""
        self._on_event = on_event
        self.folders: frozenset[Path] = frozenset()
        """What is watched now."""

    def watch(self, folders: Iterable[Path]) -> None:
        """Watch exactly these folders; those that do not exist are left out."""
        self.folders = frozenset(folder for folder in folders if _exists(folder))

    def close(self) -> None:
        """Watch nothing any more."""
        self.folders = frozenset()

    def touch(self, folder: Path) -> None:
        """Something happened in this folder: an event, if it is watched."""
        if folder in self.folders:
            self._on_event()


def _exists(folder: Path) -> bool:
    try:
        folder.stat()
    except OSError:
        return False
    return True
