"""The plugin directory: its lock, and what happens in it.

A flock on the directory itself says which sgpud serves it: no lock file, nothing to clean up, and
a kill releases it. The one that waits gets it within a millisecond of the other's end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

from attrs import evolve, field, frozen
from twisted.logger import Logger

from sgpud.bridge import FolderWatches, Reactor, Timer
from sgpud.core.errors import SgpudError
from sgpud.files import identity

LOOK_EVERY = 1.0
"""Seconds between looks without a hint: what inotify does not tell (a mount over the directory)."""
_NO_DIRECTORY = "not a directory. Remove it, and restart the kubelet, which creates the directory"
KUBELET_SOCKET = "kubelet.sock"
CHECKPOINT = "kubelet_internal_checkpoint"


@frozen
class DirectoryObserver:
    """Callbacks for what happens in the directory, on the reactor."""

    on_acquired: Callable[[], None]
    """This process holds the lock and serves the directory."""
    on_lost: Callable[[], None]
    """The directory was removed or replaced; the lock is gone with it."""
    on_standby: Callable[[], None]
    """Another process serves the directory; this one waits for it to end."""
    on_kubelet: Callable[[], None]
    """kubelet.sock appeared or was replaced. Only while the lock is held."""
    on_kubelet_gone: Callable[[], None]
    on_checkpoint: Callable[[], None]
    """The checkpoint may have changed."""
    on_plugin: Callable[[], None]
    """A socket of another plugin appeared. Only while the lock is held."""
    on_stale_mount: Callable[[], None]
    """The path is a mount of a directory that was deleted, and stays so."""


@frozen
class _Seen:
    """What the last check found, to notice changes."""

    socket: tuple[int, ...] | None = None
    checkpoint: tuple[int, ...] | None = field(default=(-1,))
    plugins: frozenset[tuple[int, ...]] | None = None
    """The sockets of other plugins; None before the first look."""


class NoPermissionError(SgpudError):
    """This user cannot serve the plugin directory, now or ever."""

    def __init__(self, path: Path, user: int) -> None:
        """`path` is what it cannot write, `user` its number."""
        super().__init__(path, user)
        self.path, self.user = path, user

    def __str__(self) -> str:
        """What is missing, and what to do."""
        return (
            f"`sgpud run` needs root: user {self.user} cannot write {self.path}. Start the service "
            "(systemctl start sgpud), or name a writable directory with --plugin-dir"
        )


def check_access(path: Path) -> None:
    """NoPermissionError if this user can neither write the directory nor create it.

    For ordinary users: what keeps root out (a mount that is still to come) passes by itself.
    """
    nearest = next(one for one in (path, *path.parents) if os.path.exists(one))  # noqa: PTH110
    if os.geteuid() != 0 and not os.access(nearest, os.W_OK | os.X_OK, effective_ids=True):
        raise NoPermissionError(nearest, os.geteuid())


class PluginDirectory:
    """Watches one plugin directory and keeps its lock."""

    _log = Logger()

    def __init__(
        self,
        path: Path,
        nonce: str,
        reactor: Reactor,
        observer: DirectoryObserver,
        watcher: Callable[[Callable[[], None]], FolderWatches],
    ) -> None:
        """`nonce` is part of our sockets' names; `watcher` makes the source of hints."""
        self.path = path
        self._nonce = nonce
        self.ours = False
        self.present = False
        self._reactor = reactor
        self._observer = observer
        self._watcher = watcher(self._hinted)
        self._descriptor: int | None = None
        self._opened = 0
        """Counts the directories that were opened, to tell a lock that comes late."""
        self._seen = _Seen()
        self._timer = Timer(reactor)
        self._problem = ""
        self._stopped = False

    def start(self) -> None:
        """Check now, and keep watching."""
        self._look_and_again()

    @property
    def alive(self) -> bool:
        """Whether it is watching."""
        return self._timer.active

    def stop_looking(self) -> None:
        """Stop reporting; the lock is kept until `release`."""
        self._stopped = True
        self._watcher.close()
        self._timer.cancel()

    def release(self) -> None:
        """Release the lock for the next process."""
        self.ours = False
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    @property
    def followed(self) -> bool:
        """Whether another process has the lock, after `release`."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def look(self) -> None:
        """Compare the directory with the last check, and report what changed."""
        found = _stat(self.path)
        self.present = found is not None
        if self._descriptor is not None:
            mine = os.fstat(self._descriptor)
            if found is None or (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
                self._lose()
            elif found.st_nlink == 0:
                # By the path's own count: the descriptor's may have fallen since, when the
                # directory was removed just now, and that the next look sees.
                self._lose()
                self._observer.on_stale_mount()
                return
        directory = found is not None and stat.S_ISDIR(found.st_mode)
        if directory and self._descriptor is None:
            self._open()
        self._watcher.watch([self.path, *_nearest(self.path)])
        if found is not None and not directory:
            raise NotADirectoryError(errno.ENOTDIR, _NO_DIRECTORY)
        self._look_inside()

    def _look_inside(self) -> None:
        before = self._seen
        checkpoint = identity(self.path / CHECKPOINT)
        self._seen = evolve(before, checkpoint=checkpoint)
        if checkpoint != before.checkpoint:
            self._observer.on_checkpoint()
        if not self.ours:
            return
        socket = identity(self.path / KUBELET_SOCKET)
        plugins = self._plugins()
        self._seen = _Seen(socket, checkpoint, plugins)
        if before.plugins is not None and plugins - before.plugins:
            self._observer.on_plugin()
        if socket is not None and socket != before.socket:
            self._observer.on_kubelet()
        elif socket is None and before.socket is not None:
            self._observer.on_kubelet_gone()

    def _plugins(self) -> frozenset[tuple[int, ...]]:
        """The sockets in the directory that are neither the kubelet's nor ours."""
        found = set()
        with suppress(OSError):  # what goes meanwhile is none
            for entry in os.scandir(self.path):
                if entry.name != KUBELET_SOCKET and self._nonce not in entry.name:
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISSOCK(status.st_mode):
                        found.add((status.st_dev, status.st_ino, status.st_ctime_ns))
        return frozenset(found)

    def _hinted(self) -> None:
        """Check soon; a burst of hints causes one check."""
        if not self._stopped:
            self._timer.set(0, self._look_and_again)

    def _look_and_again(self) -> None:
        problem = ""
        try:
            self.look()
        except OSError as error:
            problem = error.strerror or str(error)
            if problem != self._problem:
                self._log.error(
                    "Cannot serve {path}: {problem}", path=str(self.path), problem=problem
                )
        self._problem = problem
        if not self._stopped:
            self._timer.at_most(LOOK_EVERY, self._look_and_again)

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._opened += 1
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._observer.on_standby()
            # A daemon thread: nothing can wake it from flock, and the process may end meanwhile.
            # It has its own descriptor, so that it never waits on a reused number.
            own = os.dup(self._descriptor)
            Thread(target=self._wait, args=(own, self._opened), name="lock", daemon=True).start()
        except OSError:
            self.release()  # so that the next look tries again
            raise
        else:
            self._own(self._opened)

    def _wait(self, descriptor: int, opened: int) -> None:
        """Wait for the lock, in a thread: it belongs to both descriptors of this opening."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            return
        finally:
            # The other one keeps the lock. Where that is closed too, the lock came too late.
            os.close(descriptor)
        self._reactor.callFromThread(self._own, opened)

    def _own(self, opened: int) -> None:
        if opened != self._opened or self._descriptor is None or self._stopped:
            return
        self.ours = True
        self._seen = _Seen(None, self._seen.checkpoint)
        self._observer.on_acquired()
        self._look_inside()

    def _lose(self) -> None:
        was_ours = self.ours
        self.release()
        if was_ours:
            self._observer.on_lost()


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _nearest(path: Path) -> list[Path]:
    """The nearest parent that exists: a missing directory will appear below it."""
    return next(([parent] for parent in path.parents if parent.is_dir()), [])
