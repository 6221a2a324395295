"""What shows on a node, without a call into NVML, that a driver or a GPU has come or gone."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from sgpud.files import read_regular

LOOK_EVERY = 1.0
"""Seconds between two looks while nothing can be read: three files of the kernel's."""

LONGEST = 4096
"""Bytes of the file that names the driver's version: two lines."""


@frozen
class DriverFiles:
    """What the kernel shows of NVIDIA's driver."""

    version: str = ""
    """The loaded module's; empty: none is loaded."""
    gpus: tuple[str, ...] = ()
    """The PCI addresses that it serves."""
    control: bool = False
    """Whether its control node is there."""


def signs(root: Path) -> DriverFiles:
    """The signs below this root; what cannot be read is as if it were not there."""
    driver = root / "proc/driver/nvidia"
    try:
        version = read_regular(driver / "version", LONGEST).decode("utf-8", "replace")
    except OSError:
        version = ""
    try:
        gpus = tuple(sorted(entry.name for entry in (driver / "gpus").iterdir()))
    except OSError:
        gpus = ()
    return DriverFiles(version, gpus, (root / "dev/nvidiactl").exists())
