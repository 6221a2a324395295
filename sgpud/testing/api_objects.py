"""ResourceSlices as the stand-in API server checks, stores and reads them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from datetime import datetime, timezone
from typing import Any

from sgpud.core.dra.quantity import QuantityError, format_bytes, whole_quantity
from sgpud.core.dra.slices import Capacity, Device, Taint

Object = dict[str, Any]


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """An answer that is not 200."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """`headers`: more than the usual."""
        super().__init__(status, message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


def checked(body: Object, gates_off: Collection[str]) -> Object:
    """What is stored of a slice: validated, with quantities rewritten and gated fields gone."""
    made = copy.deepcopy(body)
    for device in made["spec"].get("devices") or ():
        if "DRAConsumableCapacity" in gates_off:
            device.pop("allowMultipleAllocations", None)
            for capacity in device["capacity"].values():
                capacity.pop("requestPolicy", None)
        if "DRADeviceTaints" in gates_off:
            device.pop("taints", None)
        for name, capacity in device["capacity"].items():
            _check_capacity(name, capacity)
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        for taint in device.get("taints") or ():
            taint.setdefault("timeAdded", now)
    return made


def _check_capacity(name: str, capacity: Object) -> None:
    policy = capacity.get("requestPolicy") or {}
    span = policy.get("validRange") or {}
    try:
        value = whole_quantity(capacity["value"])
        least, step = whole_quantity(span.get("min", "0")), span.get("step")
        if step is not None and least + whole_quantity(step) > value:
            raise Refused(
                422,
                f"{name}.requestPolicy.validRange.step: Invalid value: one step is larger than"
                f" capacity value: {value}",
            )
    except QuantityError as error:
        raise Refused(400, str(error)) from error
    capacity["value"] = _canonical(capacity["value"])
    for table, keys in ((policy, ("default",)), (span, ("min", "step", "max"))):
        for key in keys:
            if key in table:
                table[key] = _canonical(table[key])


def _canonical(text: str) -> str:
    """A quantity as the server writes it: in the largest unit of its own kind."""
    value = whole_quantity(text)
    if text.endswith("i"):
        return format_bytes(value)
    for power, suffix in ((9, "G"), (6, "M"), (3, "k")):
        if value and value % 10**power == 0:
            return f"{value // 10**power}{suffix}"
    return str(value)


def device_of(stored: Object) -> Device:
    """A stored device, as the scheduler reads it."""
    capacities = {}
    for name, capacity in stored["capacity"].items():
        policy = capacity.get("requestPolicy", {})
        span = policy.get("validRange", {})
        capacities[name] = Capacity(
            whole_quantity(capacity["value"]),
            whole_quantity(policy.get("default", capacity["value"])),
            whole_quantity(span.get("min", "0")),
            whole_quantity(span["step"]) if "step" in span else None,
        )
    taints = tuple(
        Taint(taint["key"], taint.get("value", ""), taint["effect"])
        for taint in stored.get("taints") or ()
    )
    attributes = {
        name: next(iter(value.values())) for name, value in stored.get("attributes", {}).items()
    }
    return Device(stored["name"], str(attributes.get("uuid", "")), attributes, capacities, taints)
