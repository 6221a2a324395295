"""Reads what the container runtimes' files say, and the CDI specs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import evolve

from sgpud.cli.doctor.facts import RuntimeFacts
from sgpud.cli.doctor.files import beginning, there
from sgpud.files import within
from sgpud.gpus.cdi import Specs
from sgpud.gpus.container_runtime import (
    RuntimeConfig,
    nvidia_config,
    runtime_configs,
    takes_mounts,
)

_SOCKETS = (
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
)
_CRI = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
"""The plugin of containerd that serves the kubelet, by versions 2 and 3 of its configuration."""
_THIRD = 3
_DRIVER_FILE = re.compile(
    r"/lib(?:cuda|nvidia-[a-z0-9-]+|nvcuvid)\.so\.([0-9]{3,4}\.[0-9]{1,4}(?:\.[0-9]{1,3})?)\b"
)


def runtime_facts(root: Path) -> RuntimeFacts:
    """The container runtime below `root`."""
    facts = RuntimeFacts(sockets=tuple(name for name in _SOCKETS if there(within(root, name))))
    for config in runtime_configs(root):
        if config.problem:
            facts = evolve(facts, unreadable={**facts.unreadable, config.path: config.problem})
        else:
            facts = _containerd(facts, config)
    nvidia = nvidia_config(root)
    if nvidia is None:
        return facts
    if nvidia.problem:
        return evolve(facts, unreadable={**facts.unreadable, nvidia.path: nvidia.problem})
    variable = nvidia.document.get("accept-nvidia-visible-devices-envvar-when-unprivileged")
    return evolve(
        facts,
        by_mounts=takes_mounts(nvidia),
        by_variable=variable if isinstance(variable, bool) else None,
    )


def spec_versions(root: Path, specs: Specs) -> dict[str, tuple[str, ...]]:
    """The specs in use, each with the driver versions that its files' names carry."""
    paths = sorted({device.spec for device in specs.devices.values()})
    return {
        path: tuple(sorted(set(_DRIVER_FILE.findall(beginning(within(root, path))))))
        for path in paths
    }


def _containerd(facts: RuntimeFacts, config: RuntimeConfig) -> RuntimeFacts:
    facts = evolve(facts, configs=(*facts.configs, config.path))
    version = config.document.get("version")
    if isinstance(version, int) and version >= _THIRD:
        facts = evolve(facts, modern=True)
    for plugin in _plugins(config.document):
        default = _table(plugin, "containerd").get("default_runtime_name")
        if isinstance(default, str):
            facts = evolve(facts, default=default)
        if isinstance(plugin.get("enable_cdi"), bool):
            facts = evolve(facts, cdi=plugin["enable_cdi"])
    return facts


def _plugins(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for name in _CRI:
        yield _table(_table(document, "plugins"), name)


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key)
    return found if isinstance(found, dict) else {}
