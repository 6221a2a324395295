"""The node as a ResourceSlice: one device per GPU, its capacities, its taints, and their order.

The scheduler allocates first fit over the devices of a slice in their order, so the order is how
placement works here: with `packed` the GPU with the least room comes first, which makes first fit
best fit; with `spread` the one with the most.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve, frozen

from sgpud.core.dra.claims import MEMORY, SHARES, PreparedClaim, consumption
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.health.machine import HealthPhase
from sgpud.core.health.node_health import health_of, worst
from sgpud.core.health.xids import Remedy
from sgpud.core.planning.node import Node, Switching, Trust
from sgpud.core.sharing.rules import Partition, Placement, ShareTerms

MEBIBYTE = 2**20
_NOTHING: Mapping[str, Mapping[str, int]] = {}
LONGEST_NAME = 63
"""Characters of a device's name: a DNS label."""
LONGEST_VALUE = 64
"""Characters of a string attribute."""
MOST_DEVICES = 64
"""Devices of a slice when any of them has a taint (resource.k8s.io/v1); 8 GPUs x 7 MIG instances
are 56."""
MEMORY_SHARES = 256
"""Claims on one GPU at most, where memory is what counts."""
NO_SCHEDULE, NO_EXECUTE, NONE = "NoSchedule", "NoExecute", "None"


@frozen
class Capacity:
    """One capacity of a device, and what a request for it comes to."""

    value: int
    default: int
    """What a request that does not name it consumes."""
    least: int = 0
    """The smallest amount. Never below 0: a negative request would add to what is free."""
    step: int | None = None
    """Requests are rounded up to a multiple of it; None where the value leaves no room for one."""


@frozen
class Taint:
    """Why no new claim gets a device; its key is below the driver's name."""

    key: str
    value: str
    effect: str = NO_SCHEDULE


@frozen
class Device:
    """One GPU, as the scheduler sees it."""

    name: str
    uuid: str
    attributes: Mapping[str, str | int]
    """Those without a domain belong to the driver."""
    capacities: Mapping[str, Capacity]
    taints: tuple[Taint, ...] = ()


@frozen
class DraSettings:
    """The `[dra]` section, as far as it shapes the slice."""

    default_memory: int = 0
    """Bytes that a request consumes that names no amount."""
    evict_unhealthy: bool = False
    """Whether claim pods are evicted from an unhealthy GPU (NoExecute)."""
    placement: Placement | None = None
    """Which GPU comes first; None: always in the order of their indexes."""
    memory_placement: Placement | None = None
    """The same for GPUs in memory shares."""


def device_name(uuid: str) -> str:
    """A DNS label made of a UUID: the same after a reboot, unlike an index.

    A UUID that is no label in lower case gets a digest, so that no two have the same name.
    """
    label = re.sub(r"[^a-z0-9-]", "-", uuid.lower()).strip("-")
    if label == uuid.lower() and len(label) <= LONGEST_NAME:
        return label
    digest = hashlib.sha256(uuid.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{label[: LONGEST_NAME - 13].rstrip('-')}-{digest}".lstrip("-")


def devices(
    node: Node,
    settings: DraSettings,
    claims: Sequence[PreparedClaim] = (),
    others: Mapping[str, Mapping[str, int]] = _NOTHING,
) -> tuple[Device, ...]:
    """The devices of this node in the order in which the scheduler is to fill them.

    `others`: by UUID and capacity, what is held by pods that the scheduler does not count here,
    since the device plugin gave it to them; it is not offered.

    A GPU that is no longer shared, or gone, stays as long as a prepared claim uses it, with the
    taint `retired`: a device with claims is never removed, since the scheduler would forget them.
    """
    sharing = node.sharing
    if sharing is None or node.gpus is None:
        return ()
    used = consumption(claims)
    found = []
    for gpu in node.gpus:
        terms = sharing.terms(gpu)
        partition = sharing.partition(gpu, terms) if terms else None
        if terms and partition and partition.shares:
            device = _device(node, gpu, terms, partition, settings)
            found.append(_reduced(device, others[gpu.uuid]) if gpu.uuid in others else device)
        elif gpu.uuid in used:
            found.append(_retired(_plain(gpu, node, used[gpu.uuid])))
    present = {gpu.uuid for gpu in node.gpus}
    found += [
        _retired(Device(device_name(uuid), uuid, {"uuid": uuid}, _consumed(used[uuid])))
        for uuid in sorted(used.keys() - present)
    ]
    return in_order(found, node, settings, used)


def in_order(
    found: Iterable[Device],
    node: Node,
    settings: DraSettings,
    used: Mapping[str, Mapping[str, int]],
) -> tuple[Device, ...]:
    """Devices in the order in which the scheduler is to fill them; `used` by UUID and capacity."""
    gpus = {gpu.uuid: gpu for gpu in node.gpus or ()}

    def order(device: Device) -> tuple[object, ...]:
        gpu = gpus.get(device.uuid)
        terms = node.sharing.terms(gpu) if gpu and node.sharing else None
        in_memory = terms is not None and terms.share_memory > 0
        placement = settings.memory_placement if in_memory else settings.placement
        last = gpu.order if gpu else (0, 0, 0, device.uuid)
        return (gpu is None, _preference(device, used, placement), last)

    return tuple(sorted(found, key=order))


def _device(
    node: Node, gpu: Gpu, terms: ShareTerms, partition: Partition, settings: DraSettings
) -> Device:
    usable = partition.usable // MEBIBYTE * MEBIBYTE
    size = partition.size or settings.default_memory
    default = min(-(-size // MEBIBYTE) * MEBIBYTE, usable)
    count = MEMORY_SHARES if partition.size else partition.shares
    capacities = {
        MEMORY: Capacity(usable, default, 0, MEBIBYTE if usable >= MEBIBYTE else None),
        # With one place there is no second step below the value, which the API refuses.
        SHARES: Capacity(count, 1, 1, 1 if count > 1 else None),
    }
    attributes = {**_attributes(gpu, node.driver), "resource": terms.resource}
    return Device(
        device_name(gpu.uuid), gpu.uuid, attributes, capacities, _taints(node, gpu, settings)
    )


def _reduced(device: Device, held: Mapping[str, int]) -> Device:
    """The device without what others hold."""
    memory, shares = device.capacities[MEMORY], device.capacities[SHARES]
    left = max(0, memory.value - held.get(MEMORY, 0)) // MEBIBYTE * MEBIBYTE
    places = shares.value - held.get(SHARES, 0)
    step = MEBIBYTE if left else None
    reduced = {
        MEMORY: evolve(memory, value=left, default=min(memory.default, left), step=step),
        SHARES: evolve(shares, value=max(1, places), step=1 if places > 1 else None),
    }
    taints = device.taints if places > 0 else (*device.taints, Taint("full", "device-plugin"))
    return evolve(device, capacities=reduced, taints=taints)


def _plain(gpu: Gpu, node: Node, used: Mapping[str, int]) -> Device:
    return Device(device_name(gpu.uuid), gpu.uuid, _attributes(gpu, node.driver), _consumed(used))


def _retired(device: Device) -> Device:
    return evolve(device, taints=(*device.taints, Taint("retired", "not-shared")))


def _consumed(used: Mapping[str, int]) -> dict[str, Capacity]:
    """Capacities of what is used, for a device that gets no new claim."""
    return {
        MEMORY: Capacity(used.get(MEMORY, 0), 0),
        SHARES: Capacity(max(1, used.get(SHARES, 0)), 1, 1),
    }


def _attributes(gpu: Gpu, driver: str) -> dict[str, str | int]:
    """What a selector may ask for. Text that the API would refuse is cut or left out."""
    given: dict[str, str | int | None] = {
        "uuid": gpu.uuid,
        "productName": gpu.product,
        "index": gpu.index,
        "type": "mig" if gpu.mig else "gpu",
        "parentUuid": gpu.mig.parent if gpu.mig else None,
        # A string: as a version, leading zeros such as 550.54.05 have the whole slice refused.
        "driverVersion": driver,
        "cudaComputeCapability": "{}.{}".format(*gpu.compute) if gpu.compute else None,
        "resource.kubernetes.io/pciBusID": gpu.pci,
        "resource.kubernetes.io/numaNode": gpu.numa,
    }
    return {
        key: value if isinstance(value, int) else value[:LONGEST_VALUE]
        for key, value in given.items()
        if value is not None and value != ""
    }


_LONG = frozenset({Remedy.RESET, Remedy.REBOOT})


def _taints(node: Node, gpu: Gpu, settings: DraSettings) -> tuple[Taint, ...]:
    """The facts that keep new claims away, worst first."""
    found = []
    phase = worst(node, gpu)
    health = health_of(node, gpu.uuid)
    parent = health_of(node, gpu.physical)
    if node.probe_problem or node.trust is not Trust.CONFIRMED:
        found.append(Taint("health", "unknown"))
    elif phase is HealthPhase.UNHEALTHY:
        worse = parent if parent.phase is HealthPhase.UNHEALTHY else health
        remedy = worse.cause.remedy if worse.cause else None
        value = remedy.value if remedy in _LONG else "unhealthy"
        found.append(Taint("health", value))
        if settings.evict_unhealthy:
            found.append(Taint("evict", value, NO_EXECUTE))
    elif phase is not HealthPhase.HEALTHY:
        found.append(Taint("health", phase.value))
    if node.switching is not Switching.NO:
        found.append(Taint("switching", "device-plugin"))
    if health.cordoned or parent.cordoned:
        found.append(Taint("cordoned", "operator"))
    watch = node.watches.get(gpu.uuid)
    if watch and watch.full:
        found.append(Taint("full", "measured"))
    return tuple(found)


def room(device: Device, used: Mapping[str, Mapping[str, int]]) -> tuple[int, int]:
    """Free bytes and free places of a device."""
    mine = used.get(device.uuid, {})
    memory, shares = device.capacities[MEMORY], device.capacities[SHARES]
    return (
        memory.value - mine.get(MEMORY, 0),
        shares.value - mine.get(SHARES, 0),
    )


def _preference(
    device: Device, used: Mapping[str, Mapping[str, int]], placement: Placement | None
) -> tuple[int, int]:
    if placement is None:
        return (0, 0)
    memory, shares = room(device, used)
    # What a request consumes by default decides: places where memory costs nothing.
    free = (memory, shares) if device.capacities[MEMORY].default else (shares, memory)
    return free if placement is Placement.PACKED else (-free[0], -free[1])


def slice_problem(found: Iterable[Device]) -> str:
    """Why these devices do not fit into one slice, or empty."""
    count = sum(1 for _ in found)
    if count > MOST_DEVICES:
        return f"{count} GPUs, a ResourceSlice holds {MOST_DEVICES}: narrow [gpus] allow"
    return ""
