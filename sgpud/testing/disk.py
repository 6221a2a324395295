"""What can happen to the plugin directory behind the kubelet's and the plugin's backs."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from attrs import frozen

from sgpud.testing.kubelet.registry import SOCKET

if TYPE_CHECKING:
    from pathlib import Path


@frozen
class Disk:
    """The plugin directory, for a test to spoil."""

    directory: Path

    def touch_socket(self) -> None:
        """Set the times of kubelet.sock."""
        os.utime(self.directory / SOCKET)

    def chmod_socket(self, mode: int) -> None:
        """Set the permissions of kubelet.sock: its change time moves, its inode does not."""
        (self.directory / SOCKET).chmod(mode)

    def delete_endpoint(self, endpoint: str) -> None:
        """Delete a plugin's own socket; FileNotFoundError when it is not there."""
        (self.directory / endpoint).unlink()

    def remove(self) -> None:
        """Remove the directory with all in it; a kubelet's `restart` makes it again."""
        shutil.rmtree(self.directory)

    def make(self) -> None:
        """Make the directory, empty."""
        self.directory.mkdir(mode=0o750, parents=True)

    def replace(self) -> Path:
        """Put a new, empty directory in its place; give where the old one lies now."""
        old = self.directory.with_name(f"{self.directory.name}.old")
        self.directory.rename(old)
        self.make()
        return old
