"""The messages of the child process: each line is a frozen value, or a MessageError."""

from __future__ import annotations

import json

from attrs import evolve, frozen

from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu, UnreadableGpu, gpu_of, pci_address
from sgpud.core.gpu.observations import EventKind, GpuEvent, GpuProcess, GpuProcesses, Sample
from sgpud.core.json_checks import (
    SHOWN,
    UnusableUuidError,
    is_a,
    maybe,
    number,
    seconds_of,
    uuid_of,
)
from sgpud.gpus.nvml.faults import GpuFault, GpuFaultKind


@frozen
class MessageError(SgpudError):
    """A line of the child process that is not a valid message."""

    line: bytes
    reason: str

    def __str__(self) -> str:
        """The reason and the beginning of the line."""
        return f"{self.reason}: {self.line[:SHOWN]!r}"


_WHOLE = 100
_NOWHERE = -1
"""The index of a GPU of which not even that is known: it cannot be listed."""


@frozen
class Inventory:
    """Every GPU that can be shared, in the order of their indexes."""

    driver: str
    nvml: str
    gpus: tuple[Gpu, ...]
    refused: tuple[tuple[str, str], ...] = ()
    """The index of each GPU that cannot be shared, with the reason."""
    unreadable: tuple[UnreadableGpu, ...] = ()
    """Those, and the ones that NVML counts and cannot read, in the order of their indexes."""


@frozen
class GpuErrorMessage:
    """One GPU that fails on its own; it is not in the inventory until it works again."""

    gpu: str
    """UUID, or the index if no UUID could be read."""
    error: str


@frozen
class CallStarted:
    """Calls have started that may hang."""

    call: str
    gpu: str = ""
    """UUID, or the index if the UUID is unknown; empty for calls to no particular GPU."""
    index: int | None = None
    """NVML's index of that GPU."""


@frozen
class CallsEnded:
    """The calls have returned."""

    took: tuple[tuple[str, int, float], ...] = ()
    """Each call, how often it was made since the last message, and how many seconds it took."""


@frozen
class EventMessage:
    """An event of one GPU, and how often it occurred since the last such message."""

    event: GpuEvent
    count: int = 1


@frozen
class SamplesMessage:
    """One period's readings of every GPU."""

    samples: tuple[Sample, ...]
    odd: tuple[str, ...] = ()
    """Impossible readings, which count as not reported."""


@frozen
class ProcessesMessage:
    """The processes of every GPU, read with its samples."""

    running: tuple[GpuProcesses, ...]
    odd: tuple[str, ...] = ()
    """As of SamplesMessage."""


Facts = Inventory | GpuErrorMessage | EventMessage | SamplesMessage | ProcessesMessage
"""Facts about GPUs."""
Message = Facts | CallStarted | CallsEnded | GpuFault


def parse(line: bytes) -> Message:
    """The message in one line. MessageError for anything else, whatever the bytes are."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MessageError(line, "not JSON") from error
    try:
        return _message(message)
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(line, f"not a message of the probe ({error})") from error


def _message(message: dict[str, object]) -> Message:
    kind = is_a(dict, message)["type"]
    if kind == "begin":
        gpu = "" if message["gpu"] is None else is_a(str, message["gpu"])
        return CallStarted(is_a(str, message["call"]), gpu, maybe(message["index"]))
    if kind == "end":
        return _end(message)
    if kind == "gpu-error":
        return GpuErrorMessage(is_a(str, message["gpu"]), is_a(str, message["error"]))
    if kind == "fault":
        return GpuFault(GpuFaultKind(message["kind"]), is_a(str, message["detail"]))
    if kind == "inventory":
        return _inventory(message)
    if kind == "samples":
        return _samples(message)
    if kind == "processes":
        return _processes(message)
    if kind in ("xid", "ecc", "error"):
        return _happened(EventKind(kind), message)
    reason = f"unknown type {kind!r}"
    raise ValueError(reason)


def _inventory(message: dict[str, object]) -> Inventory:
    gpus: dict[str, Gpu] = {}
    refused = []
    for entry in is_a(list, message["gpus"]):
        try:
            gpu = gpu_of(entry)
        except (KeyError, TypeError, ValueError) as error:
            refused.append(_refused(entry, error))
            continue
        if gpu.uuid in gpus:
            same = f"another GPU has the same UUID {gpu.uuid}"
            refused.append(UnreadableGpu(gpu.index, same, pci=gpu.pci))
            continue
        gpus[gpu.uuid] = gpu
    ordered = tuple(sorted(gpus.values(), key=lambda gpu: gpu.order))
    unreadable = []
    for entry in is_a(list, message["unreadable"]):
        try:
            lost = _unreadable(is_a(dict, entry))
        except (KeyError, TypeError, ValueError) as error:
            refused.append(_refused(entry, error))
            continue
        unreadable.append(lost)
    unreadable += [each for each in refused if each.index != _NOWHERE]
    return Inventory(
        is_a(str, message["driver"]),
        is_a(str, message["nvml"]),
        ordered,
        tuple(
            ("?" if each.index == _NOWHERE else str(each.index), each.reason) for each in refused
        ),
        tuple(sorted(unreadable, key=lambda gpu: gpu.index)),
    )


def _unreadable(entry: dict[str, object]) -> UnreadableGpu:
    pci = is_a(str, entry["pci"])
    return UnreadableGpu(
        number(entry["index"]),
        is_a(str, entry["reason"]),
        is_a(str, entry["uuid"]),
        pci_address(pci) or pci,
    )


def _refused(entry: object, error: Exception) -> UnreadableGpu:
    """A GPU that is listed with as much as is known of it."""
    known = entry if isinstance(entry, dict) else {}
    index, pci = str(known.get("index")), pci_address(str(known.get("pci")))
    reason = str(error)
    if not isinstance(error, UnusableUuidError):
        reason += f" in {str(entry)[:SHOWN]}"
    place = int(index) if index.isascii() and index.isdigit() else _NOWHERE
    return UnreadableGpu(place, reason, pci=pci or "")


def _happened(kind: EventKind, message: dict[str, object]) -> EventMessage:
    uuid = uuid_of(message["gpu"])
    if kind is EventKind.ERROR:
        return EventMessage(GpuEvent(uuid, kind, detail=is_a(str, message["error"])))
    xid = number(message["number"]) if kind is EventKind.XID else 0
    event = GpuEvent(uuid, kind, xid, maybe(message["gi"]), maybe(message["ci"]))
    return EventMessage(event, number(message["count"]))


def _samples(message: dict[str, object]) -> SamplesMessage:
    found: dict[str, Sample] = {}
    odd: list[str] = []
    for entry in is_a(list, message["gpus"]):
        try:
            sample = _plausible(_sample(is_a(dict, entry), odd), odd)
        except (KeyError, TypeError, ValueError):
            # The inventory names the GPUs that are ignored; their samples are of no use.
            continue
        found[sample.uuid] = sample
    return SamplesMessage(tuple(found.values()), tuple(odd))


def _plausible(sample: Sample, odd: list[str]) -> Sample:
    """The sample without the readings that cannot be; `odd` gets the values that they had."""
    used, total, busy = sample.used, sample.total, sample.utilisation
    if used is not None and total and used > total:
        odd.append(f"{sample.uuid}: {used} of {total} bytes in use")
        sample = evolve(sample, used=None)
    if busy is not None and busy > _WHOLE:
        odd.append(f"{sample.uuid}: {busy} % utilisation")
        sample = evolve(sample, utilisation=None)
    return sample


def _sample(entry: dict[str, object], odd: list[str]) -> Sample:
    uuid = uuid_of(entry["uuid"])
    remap = (None, None) if entry["remap"] is None else _flags(entry["remap"])

    def reading(name: str) -> int | None:
        return _reading(entry[name], f"{uuid}: {name}", odd)

    return Sample(
        uuid=uuid,
        used=reading("used"),
        total=reading("total"),
        utilisation=reading("utilisation"),
        recovery=reading("recovery"),
        ecc=reading("ecc"),
        ecc_total=reading("ecc_total"),
        remap_pending=remap[0],
        remap_failed=remap[1],
        error=is_a(str, entry["error"]),
    )


def _reading(value: object, what: str, odd: list[str]) -> int | None:
    """A reading; None for what is no natural number, such as -1 or 2^64-1, which `odd` gets."""
    try:
        return maybe(value)
    except (TypeError, ValueError):
        odd.append(f"{what} {str(value)[:SHOWN]}")
        return None


def _flags(value: object) -> tuple[bool, bool]:
    pending, failed = is_a(list, value)
    return is_a(bool, pending), is_a(bool, failed)


def _end(message: dict[str, object]) -> CallsEnded:
    took = is_a(dict, message["took"]).items()
    return CallsEnded(tuple((is_a(str, call), *_counted(counted)) for call, counted in took))


def _counted(value: object) -> tuple[int, float]:
    times, seconds = is_a(list, value)
    return number(times), seconds_of(seconds)


def _processes(message: dict[str, object]) -> ProcessesMessage:
    found: dict[str, GpuProcesses] = {}
    odd: list[str] = []
    for entry in is_a(list, message["gpus"]):
        try:
            running = _running(is_a(dict, entry), odd)
        except (KeyError, TypeError, ValueError):
            continue  # as above: what is odd about one GPU takes nothing from another
        found[running.uuid] = running
    return ProcessesMessage(tuple(found.values()), tuple(odd))


def _running(entry: dict[str, object], odd: list[str]) -> GpuProcesses:
    uuid = uuid_of(entry["uuid"])
    processes = []
    for row in is_a(list, entry["processes"]):
        try:
            pid, used, busy = is_a(list, row)
            process = GpuProcess(number(pid))
        except (TypeError, ValueError):
            odd.append(f"{uuid}: process {str(row)[:SHOWN]}")
            continue
        what = f"{uuid}: process {process.pid}:"
        memory, share = _reading(used, f"{what} bytes", odd), _reading(busy, f"{what} %", odd)
        if share is not None and share > _WHOLE:
            odd.append(f"{what} {share} % utilisation")
            share = None
        processes.append(evolve(process, used=memory, utilisation=share))
    return GpuProcesses(uuid, tuple(processes), is_a(str, entry["error"]))
