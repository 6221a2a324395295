"""The folders in which the cgroups of pods come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from sgpud.kubelet.cgroups import LOOK_EVERY, PodCgroups, pod_cgroup, pod_folders

UID = "01234567-89ab-cdef-0123-456789abcdef"
UNDERSCORED = UID.replace("-", "_")


@define
class Watcher:
    hint: Callable[[], None]
    watched: list[set[str]] = field(factory=list)
    closed: bool = False

    def watch(self, folders: Iterable[Path]) -> None:
        self.watched.append({folder.name for folder in folders})

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("pods", "wanted"),
    [
        (
            (
                f"kubepods.slice/kubepods-pod{UNDERSCORED}.slice/cri-containerd-a.scope",
                f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice",
            ),
            {"kubepods.slice", "kubepods.slice/kubepods-burstable.slice"},
        ),
        (
            (f"kubepods/pod{UID}", f"kubepods/besteffort/pod{UID}", "system.slice/a.service"),
            {"kubepods", "kubepods/besteffort"},
        ),
        (
            (f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UNDERSCORED}.slice",),
            {"kubelet.slice/kubelet-kubepods.slice"},
        ),
        (
            (f"memory/kubepods/burstable/pod{UID}",),
            {"memory/kubepods", "memory/kubepods/burstable"},
        ),
        (("system.slice",), set()),
    ],
)
def test_the_folders_are_found_with_every_driver(
    tmp_path: Path, pods: tuple[str, ...], wanted: set[str]
) -> None:
    base = tmp_path / "sys/fs/cgroup"
    for pod in pods:
        (base / pod).mkdir(parents=True)
    assert {str(found.relative_to(base)) for found in pod_folders(tmp_path)} == wanted


def test_without_cgroups_there_is_nothing_to_watch(tmp_path: Path) -> None:
    assert list(pod_folders(tmp_path)) == []


def test_folders_that_come_later_are_watched_too(tmp_path: Path) -> None:
    clock, made = Clock(), list[Watcher]()

    def watcher(hint: Callable[[], None]) -> Watcher:
        made.append(Watcher(hint))
        return made[-1]

    hints: list[None] = []
    cgroups = PodCgroups(clock, watcher, lambda: hints.append(None), tmp_path)
    cgroups.start()
    (tmp_path / "sys/fs/cgroup/kubepods").mkdir(parents=True)
    clock.advance(LOOK_EVERY)
    assert made[0].watched == [set(), {"kubepods"}]
    made[0].hint()
    assert hints == [None]
    cgroups.stop()
    assert made[0].closed
    assert clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    "path",
    [
        f"kubepods.slice/kubepods-pod{UNDERSCORED}.slice",
        f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UNDERSCORED}.slice",
        f"kubepods/burstable/pod{UID}",
        f"kubelet/kubepods/pod{UID}",
        f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UNDERSCORED}.slice",
        "kubepods/pod0123456789abcdef0123456789abcdef",
    ],
)
def test_the_cgroup_of_a_pod_is_found_by_its_uid(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "sys/fs/cgroup" / path
    folder.mkdir(parents=True)
    uid = "0123456789abcdef0123456789abcdef" if path.endswith("0123456789abcdef") else UID
    assert pod_cgroup(tmp_path, uid) == folder
    assert pod_cgroup(tmp_path, uid.replace("0", "1")) is None


def test_without_cgroups_there_is_none_of_a_pod(tmp_path: Path) -> None:
    assert pod_cgroup(tmp_path, UID) is None
