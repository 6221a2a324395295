"""Reads the kubelet's folders, sockets and checkpoint, and which cgroups there are."""

from __future__ import annotations

import posixpath
from pathlib import Path

from sgpud.cli.doctor.facts import KubeletFacts
from sgpud.cli.doctor.files import answers, folder_state, there
from sgpud.cli.doctor.read_units import SGPUD, assigned, unit
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
_KUBELETS = (
    "kubelet.service",
    "k3s.service",
    "k3s-agent.service",
    "rke2-server.service",
    "rke2-agent.service",
    "k0scontroller.service",
    "k0sworker.service",
    "snap.microk8s.daemon-kubelite.service",
    "snap.kubelet-eks.daemon.service",
)
"""The units in which known distributions run the kubelet."""
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
        unordered=unordered(root),
    )


def unordered(root: Path) -> tuple[str, ...]:
    """The kubelet's units that may start before sgpud.service; none where that is no unit here."""
    if not unit(root, SGPUD):
        return ()
    before = _ordered(root, SGPUD, "Before")
    return tuple(
        name
        for name in _KUBELETS
        if unit(root, name) and name not in before and SGPUD not in _ordered(root, name, "After")
    )


def _ordered(root: Path, name: str, key: str) -> set[str]:
    """The units that a unit's file and its drop-ins name for this key."""
    named: set[str] = set()
    for value in assigned(root, name, key):
        # An empty value forgets what was named before.
        named = named | set(value.split()) if value else set()
    return named


def cgroups(root: Path) -> str:
    """`v2`, `v1`, `hybrid` (version 1 with 2 beside it), or empty where none is mounted."""
    base = within(root, _CGROUP)
    if there(base / "cgroup.controllers"):
        return "v2"
    if there(base / "unified" / "cgroup.controllers"):
        return "hybrid"
    return "v1" if there(base / "memory") or there(base / "devices") else ""
