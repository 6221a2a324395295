"""What the files of a node say of its container runtime, and of NVIDIA's that it may call."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from attrs import field, frozen

from sgpud.core.limits.caps import FIRST_TOOLKIT, HOOK
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
_CDI_SECTIONS = (
    ("plugins", "io.containerd.grpc.v1.cri"),
    ("plugins", "io.containerd.cri.v1.runtime"),
    ("crio", "runtime"),
)
"""The tables with the runtime's folders of CDI specs: of containerd 1.7 and 2, and of CRI-O."""
_MOST_FILES = 100
HOOK_BINARIES = (
    "/usr/bin/nvidia-cdi-hook",
    "/usr/bin/nvidia-ctk",
    "/usr/local/bin/nvidia-cdi-hook",
    "/usr/local/nvidia/toolkit/nvidia-cdi-hook",
    "/usr/local/nvidia/toolkit/nvidia-cdi-hook.real",
    "/usr/local/nvidia/toolkit/nvidia-ctk.real",
)
"""The toolkit's programs with CDI hooks: of the package, of Talos, and of the GPU operator, where a
script of the same name stands before each."""
_WITHOUT_HOOKS = ("legacy", "csv")
"""Modes of NVIDIA's runtime that use libnvidia-container instead of CDI."""
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
        if _names_runtime(config):
            return f"{config.path} names {NAME}"
    return ""


def cdi_folders(root: Path) -> tuple[str, ...]:
    """Where a container runtime is configured to look for CDI specs; empty: nothing is said."""
    found: tuple[str, ...] = ()
    for config in _all_configs(root):
        for section in _CDI_SECTIONS:
            folders = _at(config.document, section).get("cdi_spec_dirs")
            if isinstance(folders, list) and folders:
                found = tuple(str(each).rstrip("/") for each in folders)
    return found


def _names_runtime(config: RuntimeConfig) -> bool:
    """Whether a configuration has NVIDIA's runtime in a value; a comment does not count."""
    if not config.problem:
        return any(NAME in text for text in _texts(config.document))
    lines = config.text.splitlines()
    return any(NAME in line for line in lines if not line.lstrip().startswith(("#", "//")))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _at(document: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    """A table of a document; an empty one if it is not there."""
    found: object = document
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def takes_mounts(config: RuntimeConfig | None) -> bool:
    """Whether NVIDIA's runtime, so configured, takes GPUs that are named by volume mounts."""
    return config is not None and config.document.get(_ACCEPTS_MOUNTS) is True


def unlimited(root: Path, config: RuntimeConfig | None) -> str:
    """Why NVIDIA's runtime applies no memory limits, as far as its files tell, or empty."""
    section = config.document.get("nvidia-container-runtime") if config else None
    mode = section.get("mode") if isinstance(section, dict) else None
    if mode in _WITHOUT_HOOKS:
        return f'NVIDIA\'s runtime is configured with mode = "{mode}", which runs no CDI hooks'
    found = [path for path in HOOK_BINARIES if there(root, path)]
    if not found:
        return "nvidia-cdi-hook of NVIDIA's container toolkit was not found"
    if any(_has_hook(root, path) for path in found):
        return ""
    return f"{found[0]} has no {HOOK}: the toolkit is older than {FIRST_TOOLKIT}"


def there(root: Path, path: str) -> bool:
    """Whether something is at an absolute path of the node below `root`."""
    try:
        within(root, path).stat()
    except (OSError, ValueError):
        return False
    return True


def _has_hook(root: Path, path: str) -> bool:
    """Whether a program of the toolkit has the hook for memory limits."""
    try:
        real = within(root, path)
        found = real.stat()
        return _contains_hook(str(real), found.st_ino, found.st_size, found.st_mtime_ns)
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=len(HOOK_BINARIES))
def _contains_hook(path: str, _inode: int, size: int, _changed: int) -> bool:
    """The same of a file that is as these numbers say: they are 20 MB, and looked at often."""
    if not size:
        return False
    with (
        open_regular(path) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as program,
    ):
        return program.find(HOOK.encode()) >= 0


def _all_configs(root: Path) -> Iterator[RuntimeConfig]:
    yield from runtime_configs(root)
    for place in _OTHERS:
        for path in _matching(root, *place):
            yield config_at(root, path)


def _matching(root: Path, folder: str, pattern: str) -> list[str]:
    return [f"{folder}/{name}" for name in entries(root, folder, pattern)]
