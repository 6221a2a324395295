"""Hints that a pod has started or ended: its cgroup came or went.

Where cgroups can be seen at all, this is the first sign of a pod's end. It is a hint only: what
the kubelet says afterwards counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sgpud.bridge import Clock, FolderWatches, Timer
from sgpud.core.gpu.cgroup_names import pod_of

LOOK_EVERY = 10.0
"""Seconds between two looks for the folders: a kubelet makes them at its first start."""
_ROOTS = ("sys/fs/cgroup", "sys/fs/cgroup/memory")
"""Of cgroup version 2, and of one hierarchy of version 1."""
_CLASSES = ("*burstable*", "*besteffort*")
"""Folders of the pods that are not Guaranteed, below the one of those that are."""

_POD = "-pod"
"""In the name of one pod's own cgroup."""


def pod_folders(root: Path) -> Iterator[Path]:
    """The folders below which each pod has its cgroup, whatever the driver and its `--cgroup-root`.

    `kubepods.slice` and `kubepods` are of the two drivers, `kubelet.slice/kubelet-kubepods.slice`
    and `kubelet/kubepods` those of kind.
    """
    for base in _ROOTS:
        for pattern in ("*kubepods*", "*/*kubepods*"):
            for folder in (root / base).glob(pattern):
                if folder.is_dir() and _POD not in folder.name:
                    yield folder
                    below = (each for name in _CLASSES for each in folder.glob(name))
                    yield from (each for each in below if _POD not in each.name)


def pod_cgroup(root: Path, uid: str) -> Path | None:
    """The cgroup of the pod with this UID; None where there is none."""
    try:
        found = (each for folder in pod_folders(root) for each in folder.iterdir())
        return next((each for each in found if pod_of(each.name) == uid), None)
    except OSError:
        return None  # a folder went while it was looked at


class PodCgroups:
    """Watches the folders of the pods' cgroups."""

    def __init__(
        self,
        reactor: Clock,
        watcher: Callable[[Callable[[], None]], FolderWatches],
        hint: Callable[[], None],
        root: Path,
    ) -> None:
        """`watcher` makes the source of hints, given what to call."""
        self._watcher = watcher(hint)
        self._root = root
        self._again = Timer(reactor)

    def start(self) -> None:
        """Watch from now on."""
        try:
            self._watcher.watch(list(pod_folders(self._root)))
        except OSError:
            self._watcher.watch([])  # a folder went while it was looked at
        self._again.set(LOOK_EVERY, self.start)

    def stop(self) -> None:
        """Watch no more."""
        self._again.cancel()
        self._watcher.close()
