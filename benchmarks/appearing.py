"""The moment at which a file appears in a folder, from inotify."""

import ctypes
import os
import select
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from benchmarks.report import NotMeasuredError

if TYPE_CHECKING:
    from typing_extensions import Self

IN_CREATE = 0x100  # linux/inotify.h
_WITHIN = 10.0


class Appearing:
    """Watches for one name; `at` gives when it came to be, once it has."""

    def __init__(self, folder: Path, name: str) -> None:
        """Watch from now on."""
        self._name = os.fsencode(name)
        self._at: float | None = None
        libc = ctypes.CDLL(None, use_errno=True)
        self._watch = libc.inotify_init1(os.O_CLOEXEC)
        if self._watch < 0 or libc.inotify_add_watch(self._watch, bytes(folder), IN_CREATE) < 0:
            raise NotMeasuredError(f"no inotify on {folder}: {os.strerror(ctypes.get_errno())}")
        self._thread = threading.Thread(target=self._wait, name="appearing", daemon=True)

    def __enter__(self) -> "Self":
        """Start to watch."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Watch no more."""
        self._thread.join(_WITHIN)
        os.close(self._watch)

    @property
    def at(self) -> float:
        """Monotonic seconds."""
        self._thread.join(_WITHIN)
        if self._at is None:
            raise NotMeasuredError(f"{os.fsdecode(self._name)} did not appear")
        return self._at

    def _wait(self) -> None:
        while select.select([self._watch], [], [], _WITHIN)[0]:
            at = time.monotonic()
            if self._name in os.read(self._watch, 65536):
                self._at = at
                return
