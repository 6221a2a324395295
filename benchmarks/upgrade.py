"""How long a node is without shares while its package is upgraded: a part of `make bench-boot`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.report import Number, Target, median
from tests.boot.absences import Absences
from tests.boot.machine import Machine
from tests.boot.node import RESOURCE, Host, earlier, fake_driver, install

ABSENT = 100.0
"""Milliseconds that an absence may last."""
_SHARES = 100


def numbers(
    root: Path, package: Path, library: Path, work: Path, upgrades: int
) -> Iterator[Number]:
    """Upgrade from an earlier version, again and again, while a pod holds a share."""
    with Machine(root) as machine:
        earlier(package, work, machine.shared / "earlier.deb")
        shutil.copy(package, machine.shared / "sgpud.deb")
        fake_driver(machine, library)
        install(machine, "earlier.deb")
        with Host(machine) as host:
            host.became(_SHARES, _SHARES)
            held = host.admit("pod").ids
            found = [_upgrade(host) for _ in range(upgrades)]
            assert host.kubelet.container("uid-pod", "main").ids == held
    without, fewer = zip(*found, strict=True)
    aim = Target(ABSENT, "milliseconds")
    yield Number("an upgrade, longer gap without shares, p50", "ms", median(without))
    yield Number(f"the same, worst of {2 * upgrades} gaps", "ms", max(without), target=aim)
    yield Number("the same until the free ones are back, p50", "ms", median(fewer))
    yield Number(f"the same, worst of {2 * upgrades} gaps", "ms", max(fewer))


def _upgrade(host: Host) -> tuple[float, float]:
    """The longer of one upgrade's two absences in milliseconds: of every share, and of any.

    The earlier version is there again after it.
    """
    before = host.pid
    with (
        Absences(host.kubelet, RESOURCE, 1) as without,
        Absences(host.kubelet, RESOURCE, _SHARES) as fewer,
    ):
        install(host.machine)
        between = host.restarted(before)
        host.became(_SHARES, _SHARES)
    assert without.lasted, "the kubelet noticed nothing: that was no upgrade"
    install(host.machine, "earlier.deb")
    host.restarted(between)
    host.became(_SHARES, _SHARES)
    return 1000 * max(without.lasted), 1000 * max(fewer.lasted)
