"""The CDI specs of prepared claims: writes them, and restores those that are missing or changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

from twisted.logger import Logger

from sgpud.core.dra.injecting import spec_name
from sgpud.files import identity, replace_file


class CdiFolder:
    """Writes, restores and removes specs. Blocks; any number of threads."""

    _log = Logger()

    def __init__(self, path: Path, driver: str) -> None:
        """The folder is created with the first spec: it is in a tmpfs that a reboot empties."""
        self.path = path
        self._driver = driver
        self._lock = Lock()
        self._written: dict[str, tuple[str, object]] = {}
        """Text and identity of each spec's file, by claim UID."""

    def write(self, uid: str, spec: str) -> None:
        """Write a claim's spec, whole or not at all; OSError."""
        target = self.path / spec_name(self._driver, uid)
        self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Runtimes read *.json and *.yaml only, so that they never see the draft.
        # They are restored after a reboot: the disk, mostly a tmpfs, is not waited for.
        replace_file(target, spec.encode(), 0o644, durable=False)
        with self._lock:
            self._written[uid] = (spec, identity(target, follow=False))

    def ensure(self, uid: str, spec: str) -> bool:
        """Have the spec there as it was written; whether it had to be restored. OSError."""
        with self._lock:
            known = self._written.get(uid)
        found = identity(self.path / spec_name(self._driver, uid), follow=False)
        if known is not None and found is not None and known == (spec, found):
            return False
        self.write(uid, spec)
        return True

    def remove(self, uid: str) -> None:
        """Remove a claim's spec; OSError. One that is not there is no error."""
        with self._lock:
            self._written.pop(uid, None)
        (self.path / spec_name(self._driver, uid)).unlink(missing_ok=True)

    def guard(self, specs: Mapping[str, str]) -> int:
        """Restore what was changed or lost of these specs, by claim UID; how many.

        Only those that this process has written: another thread may be writing a new one just now.
        """
        with self._lock:
            written = specs.keys() & self._written.keys()
        return self.restore({uid: specs[uid] for uid in written})

    def restore(self, specs: Mapping[str, str]) -> int:
        """Have every one of these specs there, by claim UID; how many had to be written."""
        return sum(self._restored(uid, spec) for uid, spec in specs.items())

    def _restored(self, uid: str, spec: str) -> bool:
        try:
            return self.ensure(uid, spec)
        except OSError as error:
            self._log.error(
                "Cannot write the CDI spec of claim {uid} to {folder}: {problem}. Its "
                "containers cannot restart until that works",
                uid=uid,
                folder=str(self.path),
                problem=error.strerror or str(error),
            )
            return False

    def sweep(self, keep: frozenset[str]) -> list[str]:
        """Remove what an earlier run left of claims other than these; the names."""
        prefix, suffix = spec_name(self._driver, "\0").split("\0")
        kept = {spec_name(self._driver, uid) for uid in keep}
        gone = []
        with suppress(OSError):
            for entry in list(os.scandir(self.path)):
                name = entry.name
                ours = name.startswith(prefix) and name.endswith(suffix)
                if name.startswith(f".{prefix}") or (ours and name not in kept):
                    with suppress(OSError):
                        Path(entry.path).unlink()
                        gone.append(name)
        return gone
