"""Reads what the container runtimes' files say, and the CDI specs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve

from sgpud.cli.doctor.facts import RuntimeFacts
from sgpud.cli.doctor.files import beginning, listed, there
from sgpud.gpus.cdi import Specs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SOCKETS = (
    "run/containerd/containerd.sock",
    "run/k3s/containerd/containerd.sock",
    "run/k0s/containerd.sock",
    "var/snap/microk8s/common/run/containerd.sock",
    "run/crio/crio.sock",
    "run/cri-dockerd.sock",
)
_CONTAINERD = (
    ("etc/containerd", "config.toml"),
    ("etc/containerd/conf.d", "*.toml"),
    ("var/lib/rancher/k3s/agent/etc/containerd", "config.toml"),
    ("var/lib/rancher/rke2/agent/etc/containerd", "config.toml"),
)
_NVIDIA = "etc/nvidia-container-runtime/config.toml"
_CRI = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
"""The plugin of containerd that serves the kubelet, by versions 2 and 3 of its configuration."""
_THIRD = 3
_DRIVER_FILE = re.compile(
    r"/lib(?:cuda|nvidia-[a-z0-9-]+|nvcuvid)\.so\.([0-9]{3,4}\.[0-9]{1,4}(?:\.[0-9]{1,3})?)\b"
)


def runtime_facts(root: Path) -> RuntimeFacts:
    """The container runtime below `root`."""
    facts = RuntimeFacts(sockets=tuple(f"/{name}" for name in _SOCKETS if there(root / name)))
    for folder, pattern in _CONTAINERD:
        for path in listed(root / folder, pattern):
            facts = _containerd(facts, f"/{folder}/{path.name}", beginning(path))
    if there(root / _NVIDIA):
        facts = _nvidia(facts, beginning(root / _NVIDIA))
    return facts


def spec_versions(root: Path, specs: Specs) -> dict[str, tuple[str, ...]]:
    """The specs that were read, each with the driver versions that its files' names carry."""
    paths = sorted({device.spec for device in specs.devices})
    return {
        path: tuple(sorted(set(_DRIVER_FILE.findall(beginning(root / path.lstrip("/"))))))
        for path in paths
    }


def _containerd(facts: RuntimeFacts, path: str, text: str) -> RuntimeFacts:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        return evolve(facts, unreadable={**facts.unreadable, path: str(problem)})
    facts = evolve(facts, configs=(*facts.configs, path))
    version = document.get("version")
    if isinstance(version, int) and version >= _THIRD:
        facts = evolve(facts, modern=True)
    for plugin in _plugins(document):
        default = _table(plugin, "containerd").get("default_runtime_name")
        if isinstance(default, str):
            facts = evolve(facts, default=default)
        if isinstance(plugin.get("enable_cdi"), bool):
            facts = evolve(facts, cdi=plugin["enable_cdi"])
    return facts


def _nvidia(facts: RuntimeFacts, text: str) -> RuntimeFacts:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as problem:
        return evolve(facts, unreadable={**facts.unreadable, f"/{_NVIDIA}": str(problem)})
    mounts = document.get("accept-nvidia-visible-devices-as-volume-mounts")
    variable = document.get("accept-nvidia-visible-devices-envvar-when-unprivileged")
    return evolve(
        facts,
        by_mounts=mounts if isinstance(mounts, bool) else None,
        by_variable=variable if isinstance(variable, bool) else None,
    )


def _plugins(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name in _CRI:
        yield _table(_table(document, "plugins"), name)


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}
