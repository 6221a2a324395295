"""Samples of a GPU's memory, and random histories of them."""

from __future__ import annotations

from random import Random

from sgpud.core.gpu.attribution import Container
from sgpud.core.limits.overuse import GpuMemorySample, MemoryUse
from sgpud.core.limits.settings import LimitSettings
from sgpud.core.units import Amount
from tests.core.values import GIB, uuid

MIB = 2**20
EVERY, GAP = 5.0, 15.0
TOTAL = 40 * GIB
ALICE, BOB = ("a-1", "main"), ("b-1", "main")


def use(
    container: Container, used: int | None, granted: int = 8 * GIB, pod: str = "team/pod"
) -> MemoryUse:
    return MemoryUse(container, pod, granted, used)


def sample(at: float, *uses: MemoryUse, used: int | None = 39 * GIB) -> GpuMemorySample:
    return GpuMemorySample(uuid(0), at, TOTAL, used, uses)


def history(random: Random) -> tuple[LimitSettings, list[GpuMemorySample]]:
    """A random GPU: containers come, grow, shrink, end and are lost sight of."""
    settings = LimitSettings(
        tolerance=random.choice([0, 512, 2048]) * MIB,
        over_for=random.choice([0.0, 10.0, 30.0]),
        pressure=random.choice([None, Amount(percent=50.0), Amount(30 * GIB)]),
        spare=random.choice([(), ("kube-system/*",)]),
    )
    names: list[Container] = [("a-1", "x"), ("b-1", "x"), ("b-1", "y"), ("c" * 32, "x")]
    pods = {name: random.choice(["team/web", "kube-system/web", ""]) for name in names}
    grants = {name: random.randrange(1, 12) * GIB for name in names}
    levels = dict.fromkeys(names, 0)
    at, samples = 0.0, []
    for _ in range(random.randrange(5, 20)):
        at += random.choice([EVERY, EVERY, EVERY, EVERY, 3 * EVERY, 4 * EVERY])
        for name in names:
            if random.random() < 0.3:
                levels[name] = random.randrange(0, 16 * 1024) * MIB
        seen = [name for name in names if random.random() < 0.9]
        uses = [
            use(name, None if random.random() < 0.05 else levels[name], grants[name], pods[name])
            for name in seen
        ]
        used = None if random.random() < 0.05 else min(TOTAL, sum(levels.values()) + 20 * GIB)
        samples.append(sample(at, *uses, used=used))
    return settings, samples
