"""Two drivers in forty lines each: what a limit of a cgroup means with dmem, and with misc."""

from __future__ import annotations

from attrs import define, field

from sgpud.limits.helper.cgroups import LimitRefusedError
from sgpud.limits.helper.nvml import UNLIMITED


@define
class DmemModel:
    """Every ancestor is charged, and every limit on the way up holds."""

    limits: dict[tuple[str, str], int] = field(factory=dict)
    """Bytes by GPU and cgroup."""
    held: dict[tuple[str, str], int] = field(factory=dict)
    """What the processes in each cgroup have, by GPU and cgroup."""
    backend = "dmem"

    def set(self, gpu: str, cgroup: str, limit: int) -> None:
        """Set a limit, or none with UNLIMITED."""
        self.limits.pop((gpu, cgroup), None)
        if limit != UNLIMITED:
            self.limits[gpu, cgroup] = limit

    def get(self, gpu: str, cgroup: str) -> tuple[int, int]:
        """The limit of a cgroup itself, and what counts against it."""
        return self.limits.get((gpu, cgroup), UNLIMITED), self.used(gpu, cgroup)

    def used(self, gpu: str, cgroup: str) -> int:
        """What counts against a limit of this cgroup."""
        return sum(size for (on, at), size in self.held.items() if on == gpu and _in(at, cgroup))

    def allocate(self, gpu: str, cgroup: str, size: int) -> bool:
        """A process takes memory; False where a limit is in the way."""
        limits = [(at, limit) for (on, at), limit in self.limits.items() if on == gpu]
        if any(_in(cgroup, at) and self.used(gpu, at) + size > limit for at, limit in limits):
            return False
        self.held[gpu, cgroup] = self.held.get((gpu, cgroup), 0) + size
        return True

    def remove(self, cgroup: str) -> None:
        """A cgroup is gone, with its processes and limits."""
        self.held = {key: size for key, size in self.held.items() if not _in(key[1], cgroup)}
        self.limits = {key: size for key, size in self.limits.items() if not _in(key[1], cgroup)}


@define
class MiscModel(DmemModel):
    """The nearest limit on the way up alone counts, and only what is taken while it is there."""

    counted: dict[tuple[str, str], int] = field(factory=dict)
    """What counts against each limit, by GPU and cgroup."""
    backend = "misc"

    def set(self, gpu: str, cgroup: str, limit: int) -> None:
        """Set a limit; not below what counts already."""
        if limit < self.used(gpu, cgroup):
            raise LimitRefusedError("value", "less than is in use")
        super().set(gpu, cgroup, limit)
        if limit == UNLIMITED:
            self.counted.pop((gpu, cgroup), None)

    def get(self, gpu: str, cgroup: str) -> tuple[int, int]:
        """The nearest limit, and what counts against it."""
        at = self._nearest(gpu, cgroup)
        return (self.limits[gpu, at], self.used(gpu, at)) if at else (UNLIMITED, 0)

    def used(self, gpu: str, cgroup: str) -> int:
        """What counts against a limit of this cgroup."""
        return self.counted.get((gpu, cgroup), 0)

    def allocate(self, gpu: str, cgroup: str, size: int) -> bool:
        """A process takes memory; False where the nearest limit is in the way."""
        at = self._nearest(gpu, cgroup)
        if at and self.used(gpu, at) + size > self.limits[gpu, at]:
            return False
        if at:
            self.counted[gpu, at] = self.used(gpu, at) + size
        self.held[gpu, cgroup] = self.held.get((gpu, cgroup), 0) + size
        return True

    def remove(self, cgroup: str) -> None:
        """A cgroup is gone, with its processes and limits."""
        super().remove(cgroup)
        self.counted = {key: size for key, size in self.counted.items() if not _in(key[1], cgroup)}

    def _nearest(self, gpu: str, cgroup: str) -> str:
        found = [at for on, at in self.limits if on == gpu and _in(cgroup, at)]
        return max(found, key=len, default="")


def _in(cgroup: str, ancestor: str) -> bool:
    return cgroup == ancestor or cgroup.startswith(f"{ancestor}/")
