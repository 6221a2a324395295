"""Watches the configuration file, for ConfigMaps: when its content changes, sgpud reloads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sgpud.bridge import Clock, Debounce, FolderWatches, Timer
from sgpud.files import read_regular

SETTLE = 0.2
"""Seconds without another event before the file is read: editors write in several steps. Events
that never end delay it by a second at most."""
LARGEST = 1024 * 1024
"""Bytes; larger files are not compared. A configuration has at most 256 KiB."""
POLL_EVERY = 5.0
"""Seconds between polls without an event."""


class ConfigFileWatcher:
    """Calls `changed` when the content of a file has changed.

    By content, not by name or time: a ConfigMap is a chain of symbolic links, and the kubelet swaps
    one in the middle.
    """

    def __init__(
        self,
        file: Path,
        clock: Clock,
        watcher: Callable[[Callable[[], None]], FolderWatches],
        changed: Callable[[], object],
    ) -> None:
        """`watcher` makes a folder watcher that calls its argument."""
        self._file = file
        self._clock = clock
        self._watcher = watcher(self._on_event)
        self._changed = changed
        self._content = self._read()
        self._poll = Timer(clock)
        self._burst = Debounce(clock, self._check, SETTLE)

    def start(self) -> None:
        """Start watching."""
        self._watch()
        self._schedule()

    def stop(self) -> None:
        """Stop watching."""
        self._watcher.close()
        self._burst.cancel()
        self._poll.cancel()

    def _on_event(self) -> None:
        self._burst.request()

    def _schedule(self) -> None:
        self._poll.set(POLL_EVERY, self._check)

    def _check(self) -> None:
        self._schedule()
        self._burst.cancel()
        self._watch()
        content = self._read()
        if content != self._content:
            self._content = content
            self._changed()

    def _watch(self) -> None:
        """Watch the folder of every link in the chain: any of them may be swapped."""
        folders = {self._file.parent.absolute()}
        link = self._file
        # A link that cannot be followed (no permission, a name too long) is polled.
        with suppress(OSError):
            for _ in range(40):  # the kernel's own limit of links on a path
                if not link.is_symlink():
                    break
                link = link.parent / link.readlink()
                folders.add(link.parent.absolute())
        self._watcher.watch(sorted(folders))

    def _read(self) -> bytes | None:
        try:
            return hashlib.blake2b(read_regular(self._file, LARGEST)).digest()
        except OSError:
            return None  # loading the file reports what is wrong with it
