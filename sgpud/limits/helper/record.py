"""What the helper has set: a limit that is not recorded is somebody else's.

Each limit is recorded before it is set, with what was there before, so that an end at any moment
leaves none that looks like another's.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager

from sgpud.limits.helper.cgroups import LimitRefusedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Caps = dict[str, dict[str, Any]]

NAME = "limits.json"


class Record:
    """The limits that were set, by cgroup; in a file, so that the next helper knows them.

    For each cgroup: its inode, its pod, and for each GPU the bytes (several while it is being
    changed) and whether the limit came late.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, NAME)
        self.caps: Caps = {}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Read it, and keep other helpers of this node out meanwhile; LimitRefusedError."""
        try:
            lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as problem:
            raise LimitRefusedError("record", f"{self._path}.lock: {problem.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.caps = self._read()
            yield
        finally:
            os.close(lock)

    def of(self, cgroup: str, inode: int, gpu: str) -> list[int]:
        """The bytes that were set for this very cgroup, or none."""
        known = self.caps.get(cgroup)
        if known is None or known["inode"] != inode:
            return []
        return list(known["gpus"].get(gpu, {}).get("bytes", ()))

    def is_late(self, cgroup: str, gpu: str) -> bool:
        """Whether a limit that is recorded came late: it stays so."""
        return bool(self.caps[cgroup]["gpus"][gpu]["late"])

    def put(self, cgroup: str, inode: int, pod: str, gpu: str, cap: dict[str, Any]) -> None:
        """Record a limit; LimitRefusedError where that cannot be written."""
        known = self.caps.get(cgroup)
        if known is None or known["inode"] != inode:
            known = self.caps[cgroup] = {"inode": inode, "pod": pod, "gpus": {}}
        known["gpus"][gpu] = cap
        self._write()

    def drop(self, cgroup: str, gpu: str) -> None:
        """Forget a limit; LimitRefusedError where that cannot be written."""
        known = self.caps.get(cgroup)
        if known is not None and known["gpus"].pop(gpu, None) is not None:
            if not known["gpus"]:
                del self.caps[cgroup]
            self._write()

    def forget_gone(self) -> None:
        """Forget the cgroups that are no more."""
        gone = [path for path, known in self.caps.items() if _inode(path) != known["inode"]]
        for path in gone:
            del self.caps[path]
        if gone:
            self._write()

    def _read(self) -> Caps:
        try:
            with open(self._path, encoding="utf-8") as file:
                text = file.read()
            # A loss of power leaves it so, and after a boot there are no limits.
            found = json.loads(text) if text.strip("\0") else {}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as problem:
            raise LimitRefusedError("record", f"{self._path}: {problem}: remove it") from None
        if not _is_record(found):
            raise LimitRefusedError("record", f"{self._path} is not a record: remove it")
        return found

    def _write(self) -> None:
        draft = f"{self._path}.new"
        try:
            with open(draft, "w", encoding="utf-8") as file:
                file.write(json.dumps(self.caps))  # json.dump is ten times slower
            os.replace(draft, self._path)
        except OSError as problem:
            raise LimitRefusedError("record", f"{self._path}: {problem.strerror}") from None


def _is_record(found: Any) -> bool:
    try:
        caps = [cap for known in found.values() for cap in known["gpus"].values()]
        return all(
            isinstance(known["inode"], int) and isinstance(known["pod"], str)
            for known in found.values()
        ) and all(
            isinstance(cap["late"], bool)
            and cap["bytes"]
            and all(isinstance(size, int) for size in cap["bytes"])
            for cap in caps
        )
    except (AttributeError, KeyError, TypeError):
        return False


def _inode(path: str) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_ino
    except OSError:
        return 0
