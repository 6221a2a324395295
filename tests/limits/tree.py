"""A tree of cgroups as the kubelet makes it, in a folder, for the stub NVML and the helper."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

UID = "01234567-89ab-cdef-0123-456789abcdef"
OTHER = "fedcba98-7654-3210-fedc-ba9876543210"
STATIC = "0123456789abcdef0123456789abcdef"
ALL = "cpu memory pids dmem misc\n"


@frozen
class CgroupTree:
    """Cgroup v2 below a folder, with both drivers' names of a pod's cgroup."""

    root: Path

    def make(self, path: str) -> Path:
        """A cgroup and those above it, each with the files that are looked at."""
        self._fill(self.root)
        folder = self.root
        for part in Path(path).parts:
            folder /= part
            folder.mkdir(exist_ok=True)
            self._fill(folder)
        return folder

    def systemd(self, uid: str = UID) -> Path:
        """The cgroup of a Burstable pod, with the systemd driver."""
        name = f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"
        return self.make(f"kubepods.slice/kubepods-burstable.slice/{name}")

    def cgroupfs(self, uid: str = UID) -> Path:
        """The cgroup of a Guaranteed pod, with the cgroupfs driver."""
        return self.make(f"kubepods/pod{uid}")

    def remove(self, folder: Path) -> None:
        """The kernel removes a cgroup with its files."""
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()

    def _fill(self, folder: Path) -> None:
        if not (folder / "cgroup.controllers").exists():
            (folder / "cgroup.controllers").write_text(ALL)
            (folder / "cgroup.subtree_control").write_text(ALL)
            if folder != self.root:
                (folder / "dmem.max").write_text("")
