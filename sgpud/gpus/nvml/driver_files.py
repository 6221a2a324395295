"""Shows, without calling NVML, that a driver or a GPU has appeared or disappeared."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from sgpud.files import entries, read_regular, within

CHECK_EVERY = 1.0
"""Seconds between two checks while no GPU can be read. Each reads three kernel files."""

LONGEST = 4096
"""Bytes of the file that names the driver's version: two lines."""


@frozen
class DriverFiles:
    """What the kernel shows about NVIDIA's driver."""

    version: str = ""
    """The version of the loaded module; empty if none is loaded."""
    gpus: tuple[str, ...] = ()
    """The PCI addresses that it serves."""
    control: bool = False
    """Whether /dev/nvidiactl exists."""


def signs(root: Path) -> DriverFiles:
    """The state below this root; what cannot be read counts as absent."""
    try:
        path = within(root, "/proc/driver/nvidia/version")
        version = read_regular(path, LONGEST).decode("utf-8", "replace")
    except OSError:
        version = ""
    gpus = tuple(entries(root, "/proc/driver/nvidia/gpus"))
    return DriverFiles(version, gpus, within(root, "/dev/nvidiactl").exists())
