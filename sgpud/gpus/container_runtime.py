"""What the files of a node say of its container runtime, and of NVIDIA's that it may call."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from sgpud.files import entries, open_regular, within

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LARGEST = 1 << 20
"""Bytes of a configuration that are read."""
NAME = "nvidia-container-runtime"
BINARIES = (
    "/usr/bin/nvidia-container-runtime",
    "/usr/local/bin/nvidia-container-runtime",
    "/usr/local/nvidia/toolkit/nvidia-container-runtime",
)
"""Of the package, of Talos's system extension, of the GPU operator."""
NVIDIA_CONFIGS = (
    "/etc/nvidia-container-runtime/config.toml",
    "/usr/local/nvidia/toolkit/.config/nvidia-container-runtime/config.toml",
)
"""Of the package, and of the GPU operator."""
CONTAINERD = (
    ("/etc/containerd", "config.toml"),
    ("/etc/containerd/conf.d", "*.toml"),
    ("/etc/cri/conf.d", "*"),  # Talos
    ("/var/lib/rancher/k3s/agent/etc/containerd", "config.toml"),
    ("/var/lib/rancher/rke2/agent/etc/containerd", "config.toml"),
    ("/etc/k0s", "containerd.toml"),
    ("/etc/k0s/containerd.d", "*.toml"),
    ("/var/snap/microk8s/current/args", "containerd.toml"),
)
_OTHERS = (
    ("/etc/crio", "crio.conf"),
    ("/etc/crio/crio.conf.d", "*"),
    ("/etc/docker", "daemon.json"),
)
_MOST_FILES = 100
_ACCEPTS_MOUNTS = "accept-nvidia-visible-devices-as-volume-mounts"


@frozen
class RuntimeConfig:
    """A configuration file of a container runtime."""

    path: str
    text: str
    document: Mapping[str, Any] = field(factory=dict)
    """The TOML in it."""
    problem: str = ""
    """Why it is not TOML."""


def runtime_configs(root: Path) -> list[RuntimeConfig]:
    """The configuration files of containerd below `root`, with those that they import."""
    waiting = [name for place in CONTAINERD for name in _matching(root, *place)]
    found: dict[str, RuntimeConfig] = {}
    while waiting and len(found) < _MOST_FILES:
        path = waiting.pop(0)
        if path in found:
            continue
        found[path] = config_at(root, path)
        imports = found[path].document.get("imports")
        for pattern in imports if isinstance(imports, list) else ():
            folder, _, last = str(pattern).rpartition("/")
            waiting += _matching(root, folder or path.rpartition("/")[0], last)
    return list(found.values())


def config_at(root: Path, path: str) -> RuntimeConfig:
    """A TOML file; without a text where it cannot be read."""
    try:
        with open_regular(within(root, path)) as opened:
            text = opened.read(LARGEST).decode(errors="replace")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        return RuntimeConfig(path, "", problem=reason or str(error))
    try:
        return RuntimeConfig(path, text, tomllib.loads(text))
    except (ValueError, RecursionError) as error:
        return RuntimeConfig(path, text, problem=str(error))


def nvidia_config(root: Path) -> RuntimeConfig | None:
    """The configuration of NVIDIA's runtime, or None where there is none."""
    return next((config_at(root, path) for path in NVIDIA_CONFIGS if there(root, path)), None)


def nvidia_runtime(root: Path) -> str:
    """Why NVIDIA's runtime counts as installed below `root` (what was found), or empty."""
    for path in (*BINARIES, *NVIDIA_CONFIGS):
        if there(root, path):
            return f"{path} exists"
    for config in _all_configs(root):
        if NAME in config.text:
            return f"{config.path} names {NAME}"
    return ""


def takes_mounts(config: RuntimeConfig | None) -> bool:
    """Whether NVIDIA's runtime, so configured, takes GPUs that are named by volume mounts."""
    return config is not None and config.document.get(_ACCEPTS_MOUNTS) is True


def there(root: Path, path: str) -> bool:
    """Whether something is at an absolute path of the node below `root`."""
    try:
        within(root, path).stat()
    except (OSError, ValueError):
        return False
    return True


def _all_configs(root: Path) -> Iterator[RuntimeConfig]:
    yield from runtime_configs(root)
    for place in _OTHERS:
        for path in _matching(root, *place):
            yield config_at(root, path)


def _matching(root: Path, folder: str, pattern: str) -> list[str]:
    return [f"{folder}/{name}" for name in entries(root, folder, pattern)]
