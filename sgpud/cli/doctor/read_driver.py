"""Reads what the files of a node say of NVIDIA's driver."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sgpud.cli.doctor.files import beginning, there
from sgpud.core.gpu.gpu import Gpu
from sgpud.files import entries, within

_PROC = "/proc/driver/nvidia/version"
_SYS = "/sys/module/nvidia/version"
_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/lib/wsl/lib",
    "/usr/local/nvidia/lib64",
    "/home/kubernetes/bin/nvidia/lib64",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
    "/run/nvidia/driver/usr/lib64",
)
"""Folders of the library: of packages, of GKE's driver installer, of the GPU operator."""
_ARCHITECTURES = ("lib", "lib64", "x86_64-linux-gnu", "aarch64-linux-gnu")
_VERSION = re.compile(r"\b([0-9]{3,4}\.[0-9]{1,4}(?:\.[0-9]{1,3})?)\b")
_LIBRARY = re.compile(r"libnvidia-ml\.so\.([0-9]{3,4}\.[0-9.]+)")
_CHARACTER_MAJOR = 195
"""The major number of /dev/nvidiaN and /dev/nvidiactl (minor 255)."""
_CONTROL = 255


def kernel_version(root: Path) -> str:
    """The version of the loaded kernel module; empty: it is not loaded."""
    version = beginning(within(root, _SYS)).strip()
    found = _VERSION.search(version or beginning(within(root, _PROC)))
    return found[1] if found else ""


def libraries(root: Path) -> Mapping[str, str]:
    """The versions of every libnvidia-ml in a usual folder, by path on the node."""
    versions = {}
    for folder in _LIBRARIES:
        for name in entries(root, folder, "libnvidia-ml.so.*"):
            found = _LIBRARY.fullmatch(name)
            if found:
                versions[f"{folder}/{name}"] = found[1]
    return versions


def brings_libcuda(root: Path, folder: str) -> bool:
    """Whether a folder of the node, or a file, has the library that CUDA programs load."""
    if folder.rpartition("/")[2].startswith("libcuda.so"):
        return True
    places = (folder, *(f"{folder}/{name}" for name in entries(root, folder)))
    deeper = (f"{place}/{name}" for place in places for name in _ARCHITECTURES)
    return any(entries(root, place, "libcuda.so*") for place in (*places, *deeper))


def links_missing(root: Path, gpus: Iterable[Gpu]) -> tuple[str, ...]:
    """The links in /dev/char that device nodes of NVIDIA's, which are there, lack."""
    minors = {gpu.minor for gpu in gpus if gpu.minor is not None}
    wanted = [(f"nvidia{minor}", minor) for minor in sorted(minors)]
    if minors:
        wanted.append(("nvidiactl", _CONTROL))
    return tuple(
        f"/dev/char/{_CHARACTER_MAJOR}:{minor}"
        for name, minor in wanted
        if there(within(root, f"/dev/{name}"))
        and not there(within(root, "/dev/char") / f"{_CHARACTER_MAJOR}:{minor}")
    )
