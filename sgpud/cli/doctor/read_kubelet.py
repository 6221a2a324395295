"""Reads the kubelet's folders, sockets and checkpoint, and which cgroups there are."""

from __future__ import annotations

import posixpath
from pathlib import Path

from sgpud.cli.doctor.facts import KubeletFacts
from sgpud.cli.doctor.files import answers, folder_state, there
from sgpud.config.values import PLUGIN_DIRECTORY, KubeletSettings
from sgpud.files import entries, within
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
_CGROUP = "/sys/fs/cgroup"


def kubelet_facts(root: Path, settings: KubeletSettings) -> KubeletFacts:
    """The kubelet below `root`, where the configuration says that it is."""
    directory = settings.plugin_directory
    folder = within(root, directory)
    registry = f"{posixpath.dirname(directory)}/{_REGISTRY}"
    problem, registered = "", {}
    try:
        registered = registered_ids(within(root, f"{directory}/{CHECKPOINT}"))
    except CheckpointError as error:
        problem = str(error)
    elsewhere = tuple(
        path
        for path in _ELSEWHERE
        if path != directory and there(within(root, f"{path}/{KUBELET_SOCKET}"))
    )
    return KubeletFacts(
        directory=directory,
        directory_state=folder_state(folder),
        socket=answers(within(root, f"{directory}/{KUBELET_SOCKET}")),
        pod_resources_path=settings.pod_resources,
        pod_resources=answers(within(root, settings.pod_resources)),
        elsewhere=elsewhere,
        checkpoint_problem=problem,
        registered=registered,
        drivers=tuple(entries(root, registry, "*nvidia.com*.sock")),
    )


def cgroups(root: Path) -> str:
    """`v2`, `v1`, `hybrid` (version 1 with 2 beside it), or empty where none is mounted."""
    base = within(root, _CGROUP)
    if there(base / "cgroup.controllers"):
        return "v2"
    if there(base / "unified" / "cgroup.controllers"):
        return "hybrid"
    return "v1" if there(base / "memory") or there(base / "devices") else ""
