"""Events from inotify: something in a folder may have changed.

An event is only a reason to check: inotify drops events when its queue overflows, and deleting a
folder ends its watch. Users of this module also poll, at a low rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.internet import inotify
from twisted.logger import Logger
from twisted.python.filepath import FilePath

from sgpud.bridge import Reactor

_MASK = (
    inotify.IN_CREATE
    | inotify.IN_MOVED_TO
    | inotify.IN_MOVED_FROM
    | inotify.IN_DELETE
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
    | inotify.IN_CLOSE_WRITE
    | inotify.IN_ATTRIB
)


_instance: Any = inotify.INotify  # Twisted ships no types for it
_REFUSALS = (OSError, inotify.INotifyError)
"""Twisted's own error, mostly for the node's limits, is not an OSError."""


class FolderWatcher:
    """Calls back when something may have changed in one of the watched folders."""

    _log = Logger()

    def __init__(self, reactor: Reactor, on_event: Callable[[], None]) -> None:
        """`on_event` runs on the reactor, must be quick and must not raise."""
        self._reactor = reactor
        self._on_event = on_event
        # One inotify instance per folder: deleting a folder ends every watch of its instance.
        self._watches: dict[Path, tuple[tuple[int, int], Any]] = {}
        self._warned = False

    def watch(self, folders: Iterable[Path]) -> None:
        """Watch exactly these folders; those that do not exist are left out.

        Cheap when nothing changed. A folder that was deleted and recreated is watched again.
        """
        wanted = {}
        for folder in folders:
            try:
                found = folder.stat()
            except OSError:
                continue
            wanted[folder] = (found.st_dev, found.st_ino)
        for folder, (identity, _) in list(self._watches.items()):
            if wanted.get(folder) != identity:
                self._drop(folder)
        for folder, identity in wanted.items():
            if folder not in self._watches:
                self._add(folder, identity)

    def close(self) -> None:
        """Stop watching."""
        for folder in list(self._watches):
            self._drop(folder)

    def _add(self, folder: Path, identity: tuple[int, int]) -> None:
        try:
            watch: Any = _instance(self._reactor)
        except _REFUSALS as problem:
            self._warn(folder, problem)
            return
        watch.startReading()

        def changed(_watch: object, _path: object, mask: int) -> None:
            if mask & inotify.IN_DELETE_SELF:
                # Twisted closes the instance. Without an entry here, a recreated folder is watched
                # again, although it often reuses the inode number.
                self._watches.pop(folder, None)
            self._on_event()

        try:
            watch.watch(FilePath(str(folder)), _MASK, callbacks=[changed])
        except _REFUSALS as problem:
            watch.loseConnection()
            self._warn(folder, problem)
            return
        self._watches[folder] = (identity, watch)

    def _drop(self, folder: Path) -> None:
        _, watch = self._watches.pop(folder)
        watch.loseConnection()

    def _warn(self, folder: Path, problem: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._log.warn(
                "Cannot watch {folder} with inotify: {problem}; polling once a second instead; "
                "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches",
                folder=str(folder),
                problem=problem,
            )
