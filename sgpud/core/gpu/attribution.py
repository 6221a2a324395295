"""The owners of the processes on a GPU, and what each container uses of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import field, frozen

from sgpud.core.gpu.observations import GpuProcess, ProcessOwner, Usage
from sgpud.core.planning.holdings import CheckpointState, Holder

Container = tuple[str, str]
"""Pod UID and name of a container."""


class OwnerKind(Enum):
    """The kind of owner of a process."""

    HOLDER = "holder"
    """A container that holds shares of this GPU."""
    SHARELESS = "shareless"
    """A pod, or a container, that holds no share of this GPU."""
    OUTSIDE = "outside"
    """It runs outside every pod."""
    UNKNOWN = "unknown"
    """It cannot be determined."""


_HOLDER, _UNKNOWN = OwnerKind.HOLDER.value, OwnerKind.UNKNOWN.value


@frozen
class ProcessView:
    """One process on a GPU."""

    pid: int
    command: str
    """The name of its program, at most 15 characters; empty if unknown."""
    used: int | None
    """Bytes of the GPU's memory; null: not reported by NVML."""
    utilisation: int | None
    """Percent of the sampling period in which its kernels ran; null: not reported by NVML, as
    always on MIG."""
    owner: str
    """holder, shareless, outside or unknown."""
    namespace: str
    """Of its pod, like its name: empty if unknown."""
    pod: str
    uid: str
    """Its pod's UID."""
    container: str
    container_id: str
    cgroup: str
    problem: str
    """Why its owner cannot be determined, or empty."""


@frozen
class ContainerUsage:
    """What one container uses of one GPU."""

    processes: int = 0
    used: int | None = 0
    """Bytes; None: not reported by NVML."""
    utilisation: int | None = 0
    """Percent, of all its processes together, 100 at most; None: not reported by NVML."""


@frozen
class GpuUsage:
    """What is known of the use of one GPU."""

    processes: tuple[ProcessView, ...] = ()
    problem: str = ""
    """Why the use of its containers is unknown, or empty."""
    uses: Mapping[Container, ContainerUsage] = field(factory=dict)
    uncertain: frozenset[str] = frozenset()
    """UIDs of pods for whose containers the use is unknown."""

    def of(self, container: Container) -> ContainerUsage | None:
        """What a container uses; None if unknown."""
        if self.problem or not container[0] or container[0] in self.uncertain:
            return None
        return self.uses.get(container, ContainerUsage())


class Attribution:
    """Finds the owner of a process among the holders."""

    def __init__(self, checkpoint: CheckpointState | None) -> None:
        """`checkpoint` of None: the holders are unknown."""
        self._doubt = "the holders are still unknown" if checkpoint is None else checkpoint.problem
        self._pods: dict[str, Holder] = {}
        self._here: dict[tuple[str, str], dict[str, Holder]] = {}
        for holder in checkpoint.holders if checkpoint else ():
            self._pods.setdefault(holder.pod, holder)
            for uuid in holder.gpus:
                self._here.setdefault((uuid, holder.pod), {})[holder.container] = holder

    def view(self, uuid: str, process: GpuProcess, place: ProcessOwner) -> ProcessView:
        """A process of a GPU with its owner.

        A container with an unknown name is the holder if exactly one container of its pod holds
        shares of this GPU; so is any container if one request of a claim does.
        """
        pods = place.pods
        uid = next((uid for uid in reversed(pods) if uid in self._pods), pods[0] if pods else "")
        here = self._here.get((uuid, uid), {})
        container = _holding(place.container, here)
        owner, problem = self._owner(place, uid, container, here)
        known = self._pods.get(uid)
        return ProcessView(
            process.pid,
            place.command,
            process.used,
            process.utilisation,
            owner.value,
            known.namespace if known else "",
            known.name if known else "",
            uid,
            container,
            place.container_id,
            place.cgroup,
            problem,
        )

    def _owner(
        self, place: ProcessOwner, uid: str, container: str, here: Mapping[str, Holder]
    ) -> tuple[OwnerKind, str]:
        if place.problem:
            return OwnerKind.UNKNOWN, place.problem
        if place.own:
            return OwnerKind.SHARELESS, "in sgpud's own pod: a cgroup namespace hides its UID"
        if not uid:
            return OwnerKind.OUTSIDE, ""
        if container in here:
            return OwnerKind.HOLDER, ""
        if here and not container:
            return OwnerKind.UNKNOWN, "cannot determine to which holder in its pod it belongs"
        if self._doubt:
            return (
                OwnerKind.UNKNOWN,
                f"cannot determine whether its pod holds shares: {self._doubt}",
            )
        return OwnerKind.SHARELESS, ""


def _holding(container: str, here: Mapping[str, Holder]) -> str:
    """The name by which a container holds shares of a GPU, or its own; empty: unknown.

    `here`: what its pod holds of the GPU.
    """
    claims = [name for name, one in here.items() if one.claim]
    if claims and not (container in here and not here[container].claim):
        return claims[0] if len(claims) == len(here) == 1 else ""
    return container or (next(iter(here)) if len(here) == 1 else "")


def gpu_use(uuid: str, usage: Usage | None, owners: Attribution) -> GpuUsage:
    """What is known of the use of a GPU."""
    running = usage.running.get(uuid) if usage else None
    if usage is None or running is None:
        return GpuUsage(problem="its processes are not known yet")
    if running.problem:
        return GpuUsage(problem=running.problem)
    views = tuple(
        owners.view(uuid, process, usage.places[process.pid])
        for process in running.processes
        if process.pid in usage.places
    )
    unplaced = [view for view in views if view.owner == _UNKNOWN and not view.uid]
    problem = usage.problem
    if unplaced and not problem:
        problem = f"process {unplaced[0].pid} has an unknown owner: {unplaced[0].problem}"
    return GpuUsage(
        views,
        problem,
        _uses(views),
        frozenset(view.uid for view in views if view.owner == _UNKNOWN),
    )


def _uses(views: Sequence[ProcessView]) -> dict[Container, ContainerUsage]:
    found: dict[Container, list[ProcessView]] = {}
    for view in views:
        if view.owner == _HOLDER:
            found.setdefault((view.uid, view.container), []).append(view)
    return {key: _use(mine) for key, mine in found.items()}


def _use(views: Sequence[ProcessView]) -> ContainerUsage:
    busy = _sum([view.utilisation for view in views])
    return ContainerUsage(
        len(views),
        _sum([view.used for view in views]),
        None if busy is None else min(100, busy),
    )


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
