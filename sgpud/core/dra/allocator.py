"""The scheduler's allocator for consumable capacity, for one request: first fit.

Checked against the real one of Kubernetes 1.36; the vectors are in tests/core/dra.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from sgpud.core.dra.slices import NO_EXECUTE, NO_SCHEDULE, Capacity, Device


@frozen
class DeviceRequest:
    """One request of a claim: so many devices, and how much of each."""

    name: str
    count: int = 1
    amounts: Mapping[str, int] | None = None
    """What is asked of each capacity; one that is not named consumes its default."""
    tolerates: bool = False
    """Whether it tolerates every taint."""


def consumed(capacity: Capacity, asked: int | None) -> int:
    """What a request consumes: rounded up to the least amount and then to whole steps."""
    if asked is None:
        return capacity.default
    if asked <= capacity.least or capacity.step is None:
        return max(asked, capacity.least)
    steps = -(-(asked - capacity.least) // capacity.step)
    return capacity.least + steps * capacity.step


def allocate_first_fit(
    devices: Sequence[Device],
    used: Mapping[str, Mapping[str, int]],
    requests: Iterable[DeviceRequest],
) -> tuple[tuple[str, str, Mapping[str, int]], ...] | None:
    """(request, device, consumed) for every share, or None where a node cannot take all of them.

    `used`: by device name and capacity. Within a request the search goes on behind the device just
    taken, so that n devices are n different ones; the next request starts at the front again.
    """
    taken = {name: dict(sums) for name, sums in used.items()}
    found: list[tuple[str, str, Mapping[str, int]]] = []
    for request in requests:
        left = request.count
        for device in devices:
            if left == 0:
                break
            amounts = _amounts(device, taken.get(device.name, {}), request)
            if amounts is None:
                continue
            sums = taken.setdefault(device.name, {})
            for name, amount in amounts.items():
                sums[name] = sums.get(name, 0) + amount
            found.append((request.name, device.name, amounts))
            left -= 1
        if left:
            return None
    return tuple(found)


def _amounts(
    device: Device, used: Mapping[str, int], request: DeviceRequest
) -> dict[str, int] | None:
    """What the request would consume of the device; None where it may not have it."""
    blocked = any(taint.effect in (NO_SCHEDULE, NO_EXECUTE) for taint in device.taints)
    asked = request.amounts or {}
    if (blocked and not request.tolerates) or not asked.keys() <= device.capacities.keys():
        return None
    amounts = {
        name: consumed(capacity, asked.get(name)) for name, capacity in device.capacities.items()
    }
    fits = all(
        used.get(name, 0) + amount <= device.capacities[name].value
        for name, amount in amounts.items()
    )
    return amounts if fits else None
