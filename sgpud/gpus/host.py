"""What is on the node for handing GPUs to containers: device nodes, CDI specs, the runtime."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sgpud.core.delivery import DeviceNode, GpuAccess, Host
from sgpud.core.gpu import Gpu, Mig
from sgpud.core.sharing import HostMount
from sgpud.gpus.cdi import cdi_name, read_specs

REQUIRED = ("nvidiactl", "nvidia-uvm")
OPTIONAL = ("nvidia-uvm-tools", "nvidia-modeset")
RUNTIME_FILES = (
    "usr/bin/nvidia-container-runtime",
    "usr/local/nvidia/toolkit/nvidia-container-runtime",
    "etc/nvidia-container-runtime/config.toml",
)
"""Each one shows that NVIDIA's runtime is installed: by the package, or by the GPU operator."""
RUNTIME_CONFIGS = (
    "etc/containerd/config.toml",
    "etc/containerd/conf.d/*.toml",
    "etc/crio/crio.conf",
    "etc/crio/crio.conf.d/*",
    "etc/docker/daemon.json",
    "var/lib/rancher/k3s/agent/etc/containerd/config.toml",
)
"""Where a container runtime would name NVIDIA's."""
LARGEST_CONFIG = 1 << 20
_CAPABILITIES = "proc/driver/nvidia/capabilities"
_MINOR = re.compile(r"^DeviceFileMinor:\s*([0-9]{1,9})\s*$", re.MULTILINE)


def look(root: Path, gpus: Iterable[Gpu], cdi_kind: str, mounts: Iterable[HostMount]) -> Host:
    """Look at the node below `root`; never raises, what cannot be read counts as absent.

    Nothing here opens a device node. Simulated GPUs have no access: their containers get
    variables only.
    """
    specs = read_specs(root, cdi_kind)
    missing = [f"/dev/{name}" for name in REQUIRED if not _is_there(root / "dev" / name)]
    access = {}
    for gpu in gpus:
        if gpu.simulated:
            continue
        wanted, reason = _nodes(root, gpu)
        absent = [node for node in wanted if not _is_there(root / node.lstrip("/"))]
        name, why = cdi_name(specs, gpu, () if reason else wanted)
        if absent and not reason:
            reason = f"{' and '.join(absent)} missing: `nvidia-modprobe -c {gpu.minor}` makes nodes"
        nodes = () if reason else tuple(DeviceNode(node, node) for node in wanted)
        access[gpu.uuid] = GpuAccess(nodes, reason, name, why)
    return Host(
        runtime=_runtime(root),
        common_nodes=tuple(
            DeviceNode(f"/dev/{name}", f"/dev/{name}")
            for name in (*REQUIRED, *OPTIONAL)
            if _is_there(root / "dev" / name)
        ),
        device_nodes_missing=f"{' and '.join(missing)} missing: run `nvidia-modprobe -c0 -u`"
        if missing
        else "",
        mounts=tuple(mount for mount in mounts if _is_there(root / mount.host.lstrip("/"))),
        access=access,
    )


def _nodes(root: Path, gpu: Gpu) -> tuple[tuple[str, ...], str]:
    """The device nodes of one GPU as the host names them, or none and the reason."""
    if gpu.minor is None:
        return (), "NVML does not tell its minor number"
    own = f"/dev/nvidia{gpu.minor}"
    if gpu.mig is None:
        return (own,), ""
    nodes = [own]
    for access in _access_files(gpu.minor, gpu.mig):
        try:
            found = _MINOR.search((root / access).read_text())
        except (OSError, UnicodeDecodeError):
            found = None
        if not found:
            return (), f"/{access} does not tell the number of its capability node"
        nodes.append(f"/dev/nvidia-caps/nvidia-cap{found[1]}")
    return tuple(nodes), ""


def _access_files(minor: int, mig: Mig) -> tuple[str, str]:
    instance = f"{_CAPABILITIES}/gpu{minor}/mig/gi{mig.gi}"
    return f"{instance}/access", f"{instance}/ci{mig.ci}/access"


def _runtime(root: Path) -> str:
    for name in RUNTIME_FILES:
        if _is_there(root / name):
            return f"/{name} exists"
    for pattern in RUNTIME_CONFIGS:
        folder, _, last = pattern.rpartition("/")
        for path in _matching(root / folder, last):
            if b"nvidia-container-runtime" in _beginning(path):
                return f"/{folder}/{path.name} names nvidia-container-runtime"
    return ""


def _matching(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as opened:
            return opened.read(LARGEST_CONFIG)
    except OSError:
        return b""


def _is_there(path: Path) -> bool:
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True
