"""What the child process says: one line to one frozen value, or a MessageError."""

from __future__ import annotations

import json
import re
from typing import TypeVar

from attrs import frozen

from sgpud.core.errors import SgpudError
from sgpud.core.gpu import Gpu, Mig, pci_address
from sgpud.core.observation import EventKind, GpuEvent, Sample
from sgpud.gpus.faults import Fault, FaultKind

UUID = re.compile(r"(?:GPU|MIG)-[0-9A-Za-z/.-]{1,51}", re.ASCII)
"""A UUID that can be part of a share id of at most 63 characters."""
_SHOWN = 120
_LARGEST = 2**63
_T = TypeVar("_T")


@frozen
class MessageError(SgpudError):
    """A line of the child process that is no message."""

    line: bytes
    reason: str

    def __str__(self) -> str:
        """The reason and the beginning of the line."""
        return f"{self.reason}: {self.line[:_SHOWN]!r}"


@frozen
class Inventory:
    """Every GPU there is to share, in the order of their indexes."""

    driver: str
    nvml: str
    gpus: tuple[Gpu, ...]
    refused: tuple[str, ...] = ()
    """What is wrong with each GPU that could not be taken over."""


@frozen
class GpuError:
    """One GPU that fails by itself; it is not in the inventory until it is well."""

    gpu: str
    """UUID, or the index where no UUID could be read."""
    error: str


@frozen
class Begin:
    """Calls begin that may not come back."""

    call: str
    gpu: str = ""
    """UUID, or the index where that is not known yet; empty for calls to no single GPU."""
    index: int | None = None
    """NVML's index of that GPU."""


@frozen
class End:
    """They came back."""


@frozen
class Happened:
    """An event of one GPU, as often as it came since the last such message."""

    event: GpuEvent
    count: int = 1


@frozen
class Samples:
    """One period's readings of every GPU."""

    samples: tuple[Sample, ...]


Facts = Inventory | GpuError | Happened | Samples
"""What is told of GPUs."""
Message = Facts | Begin | End | Fault


def parse(line: bytes) -> Message:
    """The message in one line. MessageError for anything else, whatever the bytes are."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MessageError(line, "not JSON") from error
    try:
        return _message(said)
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(line, f"not a message of the probe ({error})") from error


def _message(said: dict[str, object]) -> Message:
    kind = _is(dict, said)["type"]
    if kind == "begin":
        gpu = "" if said["gpu"] is None else _is(str, said["gpu"])
        return Begin(_is(str, said["call"]), gpu, _maybe(said["index"]))
    if kind == "end":
        return End()
    if kind == "gpu-error":
        return GpuError(_is(str, said["gpu"]), _is(str, said["error"]))
    if kind == "fault":
        return Fault(FaultKind(said["kind"]), _is(str, said["detail"]))
    if kind == "inventory":
        return _inventory(said)
    if kind == "samples":
        return _samples(said)
    if kind in ("xid", "ecc", "error"):
        return _happened(EventKind(kind), said)
    reason = f"unknown type {kind!r}"
    raise ValueError(reason)


def _inventory(said: dict[str, object]) -> Inventory:
    gpus: dict[str, Gpu] = {}
    refused = []
    for entry in _is(list, said["gpus"]):
        try:
            gpu = _gpu(entry)
        except (KeyError, TypeError, ValueError) as error:
            refused.append(f"{error} in {str(entry)[:_SHOWN]}")
            continue
        if gpu.uuid in gpus:
            refused.append(f"two GPUs say that they are {gpu.uuid}")
            continue
        gpus[gpu.uuid] = gpu
    ordered = tuple(sorted(gpus.values(), key=lambda gpu: gpu.order))
    return Inventory(_is(str, said["driver"]), _is(str, said["nvml"]), ordered, tuple(refused))


def _happened(kind: EventKind, said: dict[str, object]) -> Happened:
    uuid = _uuid(said["gpu"])
    if kind is EventKind.ERROR:
        return Happened(GpuEvent(uuid, kind, detail=_is(str, said["error"])))
    number = _number(said["number"]) if kind is EventKind.XID else 0
    event = GpuEvent(uuid, kind, number, _maybe(said["gi"]), _maybe(said["ci"]))
    return Happened(event, _number(said["count"]))


def _samples(said: dict[str, object]) -> Samples:
    found: dict[str, Sample] = {}
    for entry in _is(list, said["gpus"]):
        try:
            sample = _sample(entry)
        except (KeyError, TypeError, ValueError):
            # The inventory names a GPU that cannot be taken over; its samples are of no use.
            continue
        found[sample.uuid] = sample
    return Samples(tuple(found.values()))


def _sample(entry: dict[str, object]) -> Sample:
    return Sample(
        uuid=_uuid(entry["uuid"]),
        used=_maybe(entry["used"]),
        total=_maybe(entry["total"]),
        utilisation=_maybe(entry["utilisation"]),
        recovery=_maybe(entry["recovery"]),
        ecc=_maybe(entry["ecc"]),
        error=_is(str, entry["error"]),
    )


def _gpu(entry: dict[str, object]) -> Gpu:
    compute = entry["compute"]
    mig = entry["mig"]
    return Gpu(
        uuid=_uuid(entry["uuid"]),
        index=_number(entry["index"]),
        product=_is(str, entry["product"]) or "unnamed GPU",
        memory=_number(entry["memory"]),
        reserved=_number(entry["reserved"]),
        minor=_maybe(entry["minor"]),
        pci=pci_address(_is(str, entry["pci"])) or "",
        numa=_maybe(entry["numa"]),
        compute=None if compute is None else _pair(compute),
        mig=None if mig is None else _mig(_is(dict, mig)),
    )


def _mig(entry: dict[str, object]) -> Mig:
    return Mig(_uuid(entry["parent"]), _number(entry["gi"]), _number(entry["ci"]))


def _uuid(value: object) -> str:
    uuid = _is(str, value)
    if not UUID.fullmatch(uuid) or "-_-" in uuid:
        reason = f"no UUID of a GPU: {uuid[:_SHOWN]!r}"
        raise ValueError(reason)
    return uuid


def _pair(value: object) -> tuple[int, int]:
    major, minor = _is(list, value)
    return _number(major), _number(minor)


def _maybe(value: object) -> int | None:
    return None if value is None else _number(value)


def _number(value: object) -> int:
    number = _is(int, value)
    if isinstance(value, bool) or not 0 <= number < _LARGEST:
        reason = f"no natural number: {value!r}"
        raise ValueError(reason)
    return number


def _is(kind: type[_T], value: object) -> _T:
    if not isinstance(value, kind):
        reason = f"{kind.__name__} expected, not {str(value)[:_SHOWN]!r}"
        raise TypeError(reason)
    return value
