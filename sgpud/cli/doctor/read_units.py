"""Reads the units of systemd: what their files and drop-ins set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sgpud.cli.doctor.files import beginning, there
from sgpud.files import entries, within

SGPUD = "sgpud.service"
_UNITS = tuple(f"{base}/systemd/system" for base in ("/etc", "/run", "/usr/lib", "/lib"))
"""Where systemd looks for units, the one that counts first."""


def unit(root: Path, name: str) -> Path | None:
    """The file of a unit: the first one that systemd finds."""
    files = (within(root, f"{folder}/{name}") for folder in _UNITS)
    return next(filter(there, files), None)


def assigned(root: Path, name: str, key: str) -> Iterator[str]:
    """The values that a unit's file and its drop-ins assign to this key, in systemd's order."""
    file = unit(root, name)
    drop_ins = {
        found: within(root, f"{folder}/{name}.d/{found}")
        for folder in reversed(_UNITS)
        for found in entries(root, f"{folder}/{name}.d", "*.conf")
    }
    for path in (*([file] if file else []), *(drop_ins[found] for found in sorted(drop_ins))):
        for line in beginning(path).splitlines():
            setting, _, value = line.partition("=")
            if setting.strip() == key:
                yield value.strip()


def has_network(root: Path) -> bool:
    """Whether sgpud.service, where it is a unit here, has the network of the node."""
    *_, last = ("no", *assigned(root, SGPUD, "PrivateNetwork"))
    return last.lower() not in {"yes", "true", "on", "1"}
