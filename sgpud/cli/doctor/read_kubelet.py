"""Reads the kubelet's folders, sockets and checkpoint, and which cgroups there are."""

from __future__ import annotations

from pathlib import Path

from sgpud.cli.doctor.facts import KubeletFacts
from sgpud.cli.doctor.files import answers, folder_state, listed, there
from sgpud.config.values import PLUGIN_DIRECTORY, KubeletSettings
from sgpud.kubelet.checkpoint import CheckpointError, registered_ids
from sgpud.kubelet.directory import CHECKPOINT, KUBELET_SOCKET

_ELSEWHERE = (
    PLUGIN_DIRECTORY,
    "/var/lib/k0s/kubelet/device-plugins",
    "/var/snap/microk8s/common/var/lib/kubelet/device-plugins",
    "/var/lib/rancher/k3s/agent/kubelet/device-plugins",
)
"""Where the kubelets of known distributions keep device plugins."""
_REGISTRY = "plugins_registry"
_CGROUP = "sys/fs/cgroup"


def kubelet_facts(root: Path, settings: KubeletSettings) -> KubeletFacts:
    """The kubelet below `root`, where the configuration says that it is."""
    directory = settings.plugin_directory
    folder = below(root, directory)
    problem, registered = "", {}
    try:
        registered = registered_ids(folder / CHECKPOINT)
    except CheckpointError as error:
        problem = str(error)
    elsewhere = tuple(
        path
        for path in _ELSEWHERE
        if path != directory and there(below(root, path) / KUBELET_SOCKET)
    )
    registry = folder.parent / _REGISTRY
    return KubeletFacts(
        directory=directory,
        directory_state=folder_state(folder),
        socket=answers(folder / KUBELET_SOCKET),
        pod_resources_path=settings.pod_resources,
        pod_resources=answers(below(root, settings.pod_resources)),
        elsewhere=elsewhere,
        checkpoint_problem=problem,
        registered=registered,
        drivers=tuple(path.name for path in listed(registry, "*nvidia.com*.sock")),
    )


def cgroups(root: Path) -> str:
    """`v2`, `v1`, `hybrid` (version 1 with 2 beside it), or empty where none is mounted."""
    base = root / _CGROUP
    if there(base / "cgroup.controllers"):
        return "v2"
    if there(base / "unified" / "cgroup.controllers"):
        return "hybrid"
    return "v1" if there(base / "memory") or there(base / "devices") else ""


def below(root: Path, path: str) -> Path:
    """A path of the node, as it is found below `root`."""
    return root / path.lstrip("/")
