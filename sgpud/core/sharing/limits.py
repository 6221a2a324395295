"""Configurations that the file alone does not show to be wrong: too much for these GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.intset import IntSet
from sgpud.core.planning.listing import partitions
from sgpud.core.sharing.rules import LARGE_STATUS, Partition, Sharing
from sgpud.core.sharing.share_id import MESSAGE_LIMIT, listed_bytes, memory_stem
from sgpud.core.units import format_size


class LimitError(SgpudError):
    """A configuration that is too much for the GPUs of this node."""

    key = ""
    """The key to change."""


class TooLargeError(LimitError):
    """A configuration whose list message the kubelet would not take."""

    def __init__(self, resource: str, shares: int, size: int, *, memory: bool = False) -> None:
        """`size` is the message's length in bytes, as it can become; `memory`: memory shares."""
        super().__init__(resource, shares, size, memory)
        self.resource, self.shares, self.size = resource, shares, size
        self.key = "sharing.share_memory" if memory else "sharing.duplication_factor"
        self._advice = "Raise share_memory" if memory else "Lower duplication_factor"

    def __str__(self) -> str:
        """The arithmetic, and what to do."""
        each = self.size / self.shares
        return (
            f"{self.resource} would have {self.shares} shares on this node: {self.shares} x "
            f"{each:.0f} bytes = {self.size} bytes in one list message, over the kubelet's limit "
            f"of {MESSAGE_LIMIT}; at most {int(MESSAGE_LIMIT // each)} shares fit. {self._advice}, "
            "or give some GPUs a resource of their own with a [[gpu]] rule"
        )


class TooManyError(LimitError):
    """Memory shares of which one GPU would have more than a pod's status should list."""

    key = "sharing.share_memory"

    def __init__(self, resource: str, gpu: Gpu, partition: Partition, reserve: int) -> None:
        """`reserve`: bytes that `reserve_memory` leaves out."""
        super().__init__(resource, gpu, partition, reserve)
        self.resource, self.gpu, self.partition, self.reserve = resource, gpu, partition, reserve

    def __str__(self) -> str:
        """The arithmetic, and what to do."""
        return (
            f"{too_many(self.gpu, self.partition, self.reserve)} of {self.resource}, more than "
            f"{LARGE_STATUS}: the status of a pod lists every id that it holds. Raise share_memory "
            f"above {format_size(self.partition.usable // (LARGE_STATUS + 1))}, or set "
            "allow_large_status = true"
        )


def too_many(gpu: Gpu, partition: Partition, reserve: int) -> str:
    """How a GPU comes to so many memory shares."""
    memory, reserved = format_size(gpu.memory or 0), format_size(gpu.reserved)
    return (
        f"{gpu.uuid}: ({memory} - {reserved} kept by the driver "
        f"- {format_size(reserve)} reserve_memory) / {format_size(partition.size)} "
        f"= {partition.asked} shares"
    )


def check_size(sharing: Sharing, gpus: Sequence[Gpu]) -> None:
    """Raise LimitError where this configuration is too much for these GPUs."""
    present = {gpu.uuid: sharing.sized(gpu) for gpu in gpus}
    sizes: dict[str, list[int]] = {}
    memory: dict[str, bool] = {}
    for (resource, uuid), partition in partitions(sharing, gpus).items():
        if partition.asked > partition.shares:
            raise TooManyError(resource, present[uuid], partition, sharing.reserve_memory)
        total = sizes.setdefault(resource, [0, 0])
        total[0] += partition.shares
        # Five digits: beside draining shares the numbers of new ones go beyond 9 999.
        stem = memory_stem(resource) if partition.size else uuid
        total[1] += listed_bytes(stem, IntSet.span(10_000, 10_000 + partition.shares))
        memory[resource] = bool(partition.size)
    for resource, (shares, size) in sizes.items():
        if size > MESSAGE_LIMIT:
            raise TooLargeError(resource, shares, size, memory=memory[resource])
