"""The state of fake GPUs: the effect of a script so far, and what NVML would report."""

from __future__ import annotations

from typing import Any

from attrs import evolve, field, frozen

from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import EventKind, GpuEvent, GpuProcess, GpuProcesses, Sample
from sgpud.gpus.fake.script import ScriptedEvent
from sgpud.gpus.nvml.faults import GpuFault, GpuFaultKind

RECOVERY_CHANGED = 154
"""The XID of the driver for: a GPU's recovery action has changed."""
LOST, HANGS = "lost", "hang"
_LOST_TEXT = "GPU is lost (NVML error 15, fake)"
_HANG_TEXT = "a call did not return (fake)"
_Place = tuple[int, "int | None", "int | None"]


@frozen
class FakeState:
    """Fake GPUs at one point in time."""

    gpus: tuple[Gpu, ...]
    """All GPUs, plugged or not."""
    gone: bool = False
    """Whether the driver is gone."""
    failed: dict[int, str] = field(factory=dict)
    """By index, LOST or HANGS."""
    unplugged: frozenset[_Place] = frozenset()
    used: dict[str, int] = field(factory=dict)
    recovery: dict[int, int] = field(factory=dict)
    ecc: dict[int, int] = field(factory=dict)
    processes: dict[str, dict[int, GpuProcess]] = field(factory=dict)
    """By UUID and process id."""

    def plugged(self, gpu: Gpu) -> bool:
        """Whether this GPU is present, healthy or not."""
        gi, ci = (gpu.mig.gi, gpu.mig.ci) if gpu.mig else (None, None)
        places = {(gpu.index, None, None), (gpu.index, gi, None), (gpu.index, gi, ci)}
        return not self.gone and not places & self.unplugged

    @property
    def inventory(self) -> tuple[Gpu, ...]:
        """The GPUs that can be read."""
        return tuple(gpu for gpu in self.gpus if self.plugged(gpu) and gpu.index not in self.failed)

    @property
    def failing(self) -> dict[str, tuple[GpuEvent, str]]:
        """By UUID, the event and the error text of a physical GPU that cannot be read."""
        found = {}
        for gpu in filter(self.plugged, self.gpus):
            if self.failed.get(gpu.index) == LOST:
                event = GpuEvent(gpu.physical, EventKind.ERROR, detail=_LOST_TEXT)
                found[gpu.physical] = (event, _LOST_TEXT)
            elif self.failed.get(gpu.index) == HANGS:
                found[gpu.physical] = (
                    GpuEvent(gpu.physical, EventKind.HANG, detail=_HANG_TEXT),
                    _HANG_TEXT,
                )
        return found

    @property
    def fault(self) -> GpuFault | None:
        """Why no GPU can be read; None if one can."""
        if self.gone:
            return GpuFault(GpuFaultKind.NO_DRIVER, "the driver is gone (fake)")
        if self.inventory:
            return None
        if self.failing:
            errors = "; ".join(f"GPU {uuid}: {text}" for uuid, (_, text) in self.failing.items())
            return GpuFault(GpuFaultKind.UNKNOWN, f"no GPU responds: {errors}")
        return GpuFault(GpuFaultKind.NO_GPU, "the driver is loaded but finds no GPU (fake)")

    @property
    def samples(self) -> tuple[Sample, ...]:
        """A sample of every GPU, and of every MIG instance."""
        found: dict[str, Sample] = {}
        for gpu in filter(self.plugged, self.gpus):
            if self.failed.get(gpu.index) == HANGS:
                continue
            if gpu.mig:
                found.setdefault(gpu.physical, self._sample(gpu, gpu.physical))
            found[gpu.uuid] = self._sample(gpu, gpu.uuid)
        return tuple(found.values())

    @property
    def running(self) -> tuple[GpuProcesses, ...]:
        """The processes of every GPU, and of every MIG instance, that responds."""
        return tuple(
            GpuProcesses(
                gpu.uuid, tuple(one for _, one in sorted(self.processes.get(gpu.uuid, {}).items()))
            )
            for gpu in self.inventory
        )

    def _used(self, gpu: Gpu) -> int:
        """Its memory in use, by processes and otherwise; never more than it has."""
        mine = self.processes.get(gpu.uuid, {}).values()
        used = self.used.get(gpu.uuid, 0) + sum(process.used or 0 for process in mine)
        return min(used, (gpu.memory or 0) - gpu.reserved)

    def _busy(self, gpu: Gpu) -> int:
        mine = self.processes.get(gpu.uuid, {}).values()
        return min(100, sum(process.utilisation or 0 for process in mine))

    def _sample(self, gpu: Gpu, uuid: str) -> Sample:
        if gpu.index in self.failed:
            return Sample(uuid, error=_LOST_TEXT)
        physical = uuid == gpu.physical
        return Sample(
            uuid=uuid,
            used=self._used(gpu) if uuid == gpu.uuid else None,
            total=gpu.memory if uuid == gpu.uuid else None,
            utilisation=self._busy(gpu) if physical and not gpu.mig else None,
            recovery=self.recovery.get(gpu.index, 0) if physical else None,
            ecc=self.ecc.get(gpu.index, 0) if physical else None,
        )


def after(world: FakeState, event: ScriptedEvent) -> FakeState:
    """The state after an event."""
    index, number = event.gpu, event.number
    place = (index, event.gi, event.ci)
    match event.action:
        case "lost" | "hang" as action:
            changed: dict[str, Any] = {"failed": {**world.failed, index: action}}
        case "back":
            failed = {each: what for each, what in world.failed.items() if each != index}
            changed = {"failed": failed, "recovery": {**world.recovery, index: 0}}
        case "unplug":
            changed = {"unplugged": world.unplugged | {place}}
        case "plug":
            changed = {"unplugged": world.unplugged - {place}}
        case "driver":
            changed = {"gone": event.state == "gone"}
        case "recovery":
            changed = {"recovery": {**world.recovery, index: number}}
        case "ecc":
            changed = {"ecc": {**world.ecc, index: world.ecc.get(index, 0) + 1}}
        case "used":
            used = {gpu.uuid: number for gpu in world.gpus if _matches(event, gpu)}
            changed = {"used": {**world.used, **used}}
        case "process" | "ended":
            changed = {"processes": _with(world, event)}
        case _:
            changed = {}
    return evolve(world, **changed)


def _with(world: FakeState, event: ScriptedEvent) -> dict[str, dict[int, GpuProcess]]:
    """The processes after one has started, changed or ended."""
    found = dict(world.processes)
    for gpu in world.gpus:
        if _matches(event, gpu):
            kept = dict(found.get(gpu.uuid, {}))
            kept.pop(event.number, None)
            if event.action == "process":
                busy = None if gpu.mig else event.utilisation or 0
                kept[event.number] = GpuProcess(event.number, event.memory, busy)
            found[gpu.uuid] = kept
    return found


def event_of(world: FakeState, event: ScriptedEvent) -> GpuEvent | None:
    """What the driver reports immediately for a scripted event; None for nothing."""
    gpu = next((gpu for gpu in world.gpus if _matches(event, gpu)), None)
    if gpu is None or not world.plugged(gpu) or world.failed.get(gpu.index) == HANGS:
        return None
    if event.action == "ecc":
        return GpuEvent(gpu.physical, EventKind.ECC, gi=event.gi, ci=event.ci)
    if event.action == "recovery":
        return GpuEvent(gpu.physical, EventKind.XID, RECOVERY_CHANGED)
    if event.action == "xid":
        number, gi, ci = event.number, event.gi, event.ci
        return GpuEvent(gpu.physical, EventKind.XID, number, gi, ci)
    return None


def _matches(event: ScriptedEvent, gpu: Gpu) -> bool:
    if event.gpu != gpu.index:
        return False
    if event.gi is None or gpu.mig is None:
        return True
    return gpu.mig.gi == event.gi and event.ci in (None, gpu.mig.ci)
