"""The state directory: small files, 0600, written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

LAST_GOOD = "last-good.toml"
LARGEST = 1024 * 1024
"""Bytes; larger state files are ignored. Ours have a few KiB."""


class StateDirectory:
    """Reads and writes files of the state directory. A failure is logged and loses only that."""

    _log = Logger()

    def __init__(self, directory: Path) -> None:
        """The directory is created when the first file is written."""
        self.directory = directory

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self.directory / name

    def read(self, name: str) -> bytes | None:
        """A file's content; None if it is absent or cannot be read."""
        try:
            with self.path(name).open("rb") as file:
                content = file.read(LARGEST + 1)
        except FileNotFoundError:
            return None
        except OSError as problem:
            self._log.warn(
                "Cannot read {path}: {problem}", path=str(self.path(name)), problem=problem
            )
            return None
        return content if len(content) <= LARGEST else None

    def write(self, name: str, content: bytes) -> bool:
        """Replace a file: after a crash there is either the old content or the new one."""
        target = self.path(name)
        temporary = target.with_name(f".{name}.{os.getpid()}")
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write_whole(temporary, content)
            temporary.replace(target)
            self._sync_directory()
        except OSError as problem:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._log.error(
                "Cannot write {path}: {problem}. sgpud continues, but loses this on a restart; "
                "free disk space or correct the permissions",
                path=str(target),
                problem=problem,
            )
            return False
        return True

    def set_aside(self, name: str) -> Path | None:
        """Rename an invalid file, for inspection; None if that fails."""
        target = self.path(name)
        aside = target.with_name(f"{name}.unusable")
        try:
            target.replace(aside)
        except OSError as problem:
            self._log.error("Cannot rename {path}: {problem}", path=str(target), problem=problem)
            return None
        return aside

    def _write_whole(self, path: Path, content: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
