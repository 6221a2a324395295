"""The state directory: small files, 0600, written whole or not at all, each with a checksum."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred, execute
from twisted.logger import Logger

from sgpud.bridge import Clock, OneAtATime, Timer
from sgpud.files import content as content_of
from sgpud.files import open_regular, replace_file

LAST_GOOD = "last-good.toml"
LARGEST = 1024 * 1024
"""Bytes; larger state files are ignored. Ours have a few KiB."""
RETRY_FIRST, RETRY_MOST = 1.0, 30.0
"""Seconds until a failed write is tried again: at first, and after many failures."""
_SEAL = re.compile(rb"(.*)\n# sha256 ([0-9a-f]{64})\n", re.DOTALL)
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}")
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_UNMAPPED = 65534
"""The owner that the kernel shows in a user namespace for every user that has no number there."""


def sealed(content: bytes) -> bytes:
    """The content with its checksum, as it stands in the file."""
    return b"%s\n# sha256 %s\n" % (content, hashlib.sha256(content).hexdigest().encode())


def unsealed(text: bytes) -> bytes | None:
    """The content of a file; None if its checksum is missing or does not match."""
    found = _SEAL.fullmatch(text)
    if found is None or hashlib.sha256(found[1]).hexdigest().encode() != found[2]:
        return None
    return found[1]


class StateDirectory:
    """Reads and writes the state directory. A failure is logged, and retried until it is done.

    Reading is for the start, in the thread of the reactor. Writing happens in a thread, in order;
    of several contents for one file the latest wins. A directory in which other users could replace
    the files is neither read nor written.
    """

    _log = Logger()

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        work: Callable[[Callable[[], dict[str, OSError]]], Deferred[dict[str, OSError]]] = execute,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`work` runs what would block the reactor; `changed`: `problem` is another now."""
        self.directory = directory
        self.problem = ""
        """Why the latest state is not saved; empty if it is."""
        self._work = work
        self._changed = changed
        self._writes = OneAtATime(self._write_pending)
        self._pending: dict[str, bytes] = {}
        self._retry = Timer(clock)
        self._failures = 0
        self._owned = False

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self.directory / name

    def take_over(self) -> None:
        """This process alone writes the directory from now on: remove what killed ones left."""
        self._owned = True
        with suppress(OSError), self._open() as directory:
            for name in os.listdir(directory):  # noqa: PTH208 - of a descriptor
                if _TEMPORARY.fullmatch(name):
                    with suppress(OSError):
                        os.unlink(name, dir_fd=directory)

    def read(self, name: str) -> bytes | None:
        """A file's content, also if it is still to be written; None if there is no valid one."""
        if name in self._pending:
            return self._pending[name]
        try:
            with self._open() as directory, open_regular(name, os.O_NOFOLLOW, directory) as file:
                _check_owner(str(self.path(name)), os.fstat(file.fileno()))
                text = content_of(file, LARGEST)
        except FileNotFoundError:
            return None
        except OSError as problem:
            self._log.warn(
                "Cannot read {path}: {problem}",
                path=str(self.path(name)),
                problem=problem.strerror or str(problem),
            )
            return None
        content = unsealed(text)
        if content is None:
            self.set_aside(name, "its checksum does not match")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Replace a file soon: after a crash there is either the old content or the new one."""
        self._pending.pop(name, None)
        self._pending[name] = content
        self._writes.request()

    def flush(self) -> Deferred[None]:
        """Try once more, at once, what is not written yet; fires when nothing is being written."""
        if self._pending:
            self._writes.request()
        return self._writes.idle()

    def stop(self) -> None:
        """Write nothing more: another process may from now on."""
        self._writes.stop()
        self._retry.cancel()

    def set_aside(self, name: str, reason: object) -> None:
        """Rename a corrupt file, for inspection; a process that does not own it only says so."""
        target = self.path(name)
        aside = target.with_name(f"{name}.corrupt")
        renamed = ""
        if self._owned:
            try:
                with self._open() as directory:
                    os.replace(name, aside.name, src_dir_fd=directory, dst_dir_fd=directory)
                renamed = f"; it was renamed to {aside}"
            except OSError as problem:
                renamed = f"; it cannot be renamed: {problem.strerror or problem}"
        self._log.warn(
            "{path} is corrupt ({reason}); ignoring it{renamed}",
            path=str(target),
            reason=str(reason),
            renamed=renamed,
        )

    def _write_pending(self) -> Deferred[None]:
        self._retry.cancel()
        batch = dict(self._pending)
        return self._work(partial(self._save, batch)).addCallback(self._saved, batch)

    def _save(self, batch: Mapping[str, bytes]) -> dict[str, OSError]:
        """Write these files; those that could not be written, and why. Runs in a thread."""
        failed = {}
        for name, content in batch.items():
            try:
                self._replace(name, sealed(content))
            except OSError as problem:  # noqa: PERF203 - each by itself
                failed[name] = problem
        return failed

    def _saved(self, failed: Mapping[str, OSError], batch: Mapping[str, bytes]) -> None:
        for name, content in batch.items():
            if name not in failed and self._pending.get(name) is content:
                del self._pending[name]
        before = self.problem
        self.problem = "; ".join(
            f"cannot write {self.path(name)}: {problem.strerror or problem}"
            for name, problem in failed.items()
        )
        if failed:
            delay = min(RETRY_MOST, RETRY_FIRST * 2.0 ** min(self._failures, 16))
            self._failures += 1
            self._retry.set(delay, self._writes.request)
        else:
            self._failures = 0
        if self.problem == before:
            return
        if failed:
            self._log.error(
                "The state is not saved: {problem}. sgpud continues and tries again, but a restart "
                "loses it; free disk space or correct the permissions",
                problem=self.problem,
            )
        else:
            self._log.info("The state is saved again in {path}", path=str(self.directory))
        self._changed()

    def _replace(self, name: str, text: bytes) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._open() as directory:
            replace_file(Path(name), text, folder=directory)

    @contextmanager
    def _open(self) -> Iterator[int]:
        """A descriptor of the directory; PermissionError if others could replace its files."""
        real = self.directory.resolve()
        for parent in real.parents:
            found = parent.lstat()
            if not found.st_mode & stat.S_ISVTX:
                _check_owner(str(parent), found)
        descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check_owner(str(real), os.fstat(descriptor))
            yield descriptor
        finally:
            os.close(descriptor)


def _check_owner(path: str, found: os.stat_result) -> None:
    """PermissionError if another user than root or this one could change it."""
    if found.st_mode & _OTHERS:
        reason = f"other users can write {path}: run `chmod go-w {path}`"
    elif found.st_uid not in {0, os.geteuid(), _UNMAPPED}:
        reason = f"{path} belongs to another user (uid {found.st_uid}): run `chown root {path}`"
    else:
        return
    raise PermissionError(errno.EPERM, reason)
