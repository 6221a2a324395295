"""Hints that something in a folder may have changed, from inotify.

A hint is only a reason to look: inotify drops events when its queue overflows, and a deleted
folder takes its watch along. Whoever uses hints looks by itself now and then as well.
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


_instance: Any = inotify.INotify  # it comes without types
_REFUSALS = (OSError, inotify.INotifyError)
"""Twisted's own error, of the node's limits mostly, is no OSError."""


class FolderWatcher:
    """Calls back when something may have changed in one of the watched folders."""

    _log = Logger()

    def __init__(self, reactor: Reactor, hint: Callable[[], None]) -> None:
        """`hint` runs on the reactor, must be quick and must not raise."""
        self._reactor = reactor
        self._hint = hint
        # One inotify instance per folder: a folder's deletion ends every watch of its instance.
        self._watches: dict[Path, tuple[tuple[int, int], Any]] = {}
        self._blind = False

    def watch(self, folders: Iterable[Path]) -> None:
        """Watch exactly these folders; those that do not exist are left out.

        Cheap when nothing changed. A folder that was deleted and made anew is watched anew.
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
        """Watch nothing any more."""
        for folder in list(self._watches):
            self._drop(folder)

    def _add(self, folder: Path, identity: tuple[int, int]) -> None:
        try:
            watch: Any = _instance(self._reactor)
        except _REFUSALS as problem:
            self._say_blind(folder, problem)
            return
        watch.startReading()

        def told(_watch: object, _path: object, mask: int) -> None:
            if mask & inotify.IN_DELETE_SELF:
                # Twisted ends the instance by itself. Forgotten here, a folder that comes again is
                # watched anew, although it often has the inode number of the one before.
                self._watches.pop(folder, None)
            self._hint()

        try:
            watch.watch(FilePath(str(folder)), _MASK, callbacks=[told])
        except _REFUSALS as problem:
            watch.loseConnection()
            self._say_blind(folder, problem)
            return
        self._watches[folder] = (identity, watch)

    def _drop(self, folder: Path) -> None:
        _, watch = self._watches.pop(folder)
        watch.loseConnection()

    def _say_blind(self, folder: Path, problem: Exception) -> None:
        if not self._blind:
            self._blind = True
            self._log.warn(
                "No inotify on {folder} ({problem}): changes are noticed once a second instead; "
                "raise fs.inotify.max_user_instances and max_user_watches",
                folder=str(folder),
                problem=problem,
            )
