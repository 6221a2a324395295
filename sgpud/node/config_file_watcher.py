"""Follows the configuration file, for ConfigMaps: a change of its content is a reload."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from twisted.internet.interfaces import IDelayedCall

from sgpud.bridge import Clock, FolderWatches

SETTLE = 0.2
"""Seconds without a further hint before the file is read: an editor writes in several steps."""
LARGEST = 1024 * 1024
"""Bytes of a file whose content is compared; a configuration has 256 KiB at most."""
LOOK_EVERY = 5.0
"""Seconds between looks without a hint."""


class ConfigFileWatcher:
    """Calls `changed` when the content of a file is another than before.

    By content, not by name or time: a ConfigMap is a chain of symbolic links of which the kubelet
    swaps one in the middle.
    """

    def __init__(
        self,
        file: Path,
        clock: Clock,
        watcher: Callable[[Callable[[], None]], FolderWatches],
        changed: Callable[[], object],
    ) -> None:
        """`watcher` makes a source of hints, given what to call."""
        self._file = file
        self._clock = clock
        self._watcher = watcher(self._hinted)
        self._changed = changed
        self._content = self._read()
        self._call: IDelayedCall | None = None

    def start(self) -> None:
        """Follow from now on."""
        self._watch()
        self._again(LOOK_EVERY)

    def stop(self) -> None:
        """Follow no more."""
        self._watcher.close()
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _hinted(self) -> None:
        self._again(SETTLE)

    def _again(self, delay: float) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = self._clock.callLater(delay, self._look)

    def _look(self) -> None:
        self._again(LOOK_EVERY)
        self._watch()
        content = self._read()
        if content != self._content:
            self._content = content
            self._changed()

    def _watch(self) -> None:
        """The folder of every link on the way, since each of them may be swapped."""
        folders = {self._file.parent.absolute()}
        link = self._file
        # What cannot be followed further (no permission, a name too long) is looked at by time.
        with suppress(OSError):
            for _ in range(40):  # the kernel's own limit of links on a path
                if not link.is_symlink():
                    break
                link = link.parent / link.readlink()
                folders.add(link.parent.absolute())
        self._watcher.watch(sorted(folders))

    def _read(self) -> bytes | None:
        try:
            # A pipe would block the reactor; whoever loads the file says what is wrong with it.
            if not self._file.is_file() or self._file.stat().st_size > LARGEST:
                return None
            return hashlib.blake2b(self._file.read_bytes()).digest()
        except OSError:
            return None
