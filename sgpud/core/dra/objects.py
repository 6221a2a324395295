"""ResourceSlices and ResourceClaims as the API server writes them (resource.k8s.io/v1)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from sgpud.core.dra.claims import MEMORY, AllocatedClaim, AllocatedShare, ClaimPod
from sgpud.core.dra.quantity import QuantityError, format_bytes, parse_quantity, whole_quantity
from sgpud.core.dra.slices import Capacity, Device, Taint
from sgpud.core.errors import SgpudError
from sgpud.core.json_checks import is_a

API = "resource.k8s.io/v1"
EXTENDED = "resource.kubernetes.io/extended-resource-claim"
"""The annotation of claims that the scheduler makes for a pod's limits."""
MOST_RESULTS = 32
"""Devices of an allocation, at most."""


class ClaimError(SgpudError):
    """A claim that is not such as the API server writes it."""

    def __init__(self, problem: str) -> None:
        """`problem`: what is wrong with it."""
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        """The problem."""
        return f"the ResourceClaim is invalid: {self.problem}"


@frozen
class SliceOwner:
    """What is the same in every slice of this node."""

    driver: str
    node: str
    node_uid: str = ""
    """Of the Node object, so that the slices go with it; empty where it is not known."""


@frozen
class StoredSlice:
    """A slice at the API server."""

    name: str
    uid: str
    version: str
    """Its resourceVersion."""
    generation: int
    """Of its pool."""
    spec: Mapping[str, Any] = field(factory=dict)


def slice_of(document: object) -> StoredSlice:
    """A slice as it was read; TypeError, KeyError or ValueError if it is none."""
    found = is_a(dict, document)
    metadata, spec = is_a(dict, found["metadata"]), is_a(dict, found["spec"])
    return StoredSlice(
        is_a(str, metadata["name"]),
        is_a(str, metadata["uid"]),
        is_a(str, metadata["resourceVersion"]),
        is_a(int, is_a(dict, spec["pool"]).get("generation", 0)),
        spec,
    )


def slice_document(
    owner: SliceOwner, devices: Sequence[Device], stored: StoredSlice | None = None
) -> dict[str, Any]:
    """The slice to write: a new one, or the successor of the one that is stored.

    A taint that stays keeps the time at which the server saw it first.
    """
    metadata: dict[str, Any] = {"generateName": f"{owner.node}-{owner.driver}-"}
    added: dict[tuple[str, ...], Any] = {}
    if stored is not None:
        metadata = {"name": stored.name, "uid": stored.uid, "resourceVersion": stored.version}
        added = dict(_times(stored.spec))
    if owner.node_uid:
        node = {"apiVersion": "v1", "kind": "Node", "name": owner.node, "uid": owner.node_uid}
        metadata["ownerReferences"] = [{**node, "controller": True}]
    return {
        "apiVersion": API,
        "kind": "ResourceSlice",
        "metadata": metadata,
        "spec": {
            "driver": owner.driver,
            "nodeName": owner.node,
            "pool": {
                "name": owner.node,
                # One slice is the whole pool and is replaced in one write.
                "generation": stored.generation if stored else 1,
                "resourceSliceCount": 1,
            },
            "devices": [_device(each, owner.driver, added) for each in devices],
        },
    }


def _device(device: Device, driver: str, added: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": device.name,
        "attributes": {
            name: {"int": value} if isinstance(value, int) else {"string": value}
            for name, value in device.attributes.items()
        },
        "capacity": {name: _capacity(name, each) for name, each in device.capacities.items()},
        "allowMultipleAllocations": True,
    }
    if device.taints:
        found["taints"] = [_taint(device.name, driver, each, added) for each in device.taints]
    return found


def _capacity(name: str, capacity: Capacity) -> dict[str, Any]:
    written = format_bytes if name == MEMORY else str
    span = {"min": written(capacity.least)}
    if capacity.step is not None:
        span["step"] = written(capacity.step)
    policy = {"default": written(capacity.default), "validRange": span}
    return {"value": written(capacity.value), "requestPolicy": policy}


def _taint(
    device: str, driver: str, taint: Taint, added: Mapping[tuple[str, ...], Any]
) -> dict[str, Any]:
    key = f"{driver}/{taint.key}"
    found = {"key": key, "value": taint.value, "effect": taint.effect}
    since = added.get((device, key, taint.value, taint.effect))
    return {**found, "timeAdded": since} if since else found


def _times(spec: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for device in _dicts(spec.get("devices")):
        for taint in _dicts(device.get("taints")):
            key = (device.get("name"), taint.get("key"), taint.get("value"), taint.get("effect"))
            yield tuple(map(str, key)), taint.get("timeAdded")


def difference(sent: Mapping[str, Any], stored: Mapping[str, Any]) -> tuple[str, ...]:
    """What of a spec that was sent is not in the one that is stored, as paths; empty: nothing.

    Quantities are compared as numbers: the server answers 40960Mi with 40Gi. What the server adds
    is no difference, but for a device or a taint more.
    """
    return tuple(_differences(sent, stored, ""))


_COUNTED = ("devices", "taints")


def _differences(sent: object, stored: object, path: str) -> Iterator[str]:
    if isinstance(sent, Mapping):
        held = stored if isinstance(stored, Mapping) else {}
        for key, value in sent.items():
            yield from _differences(value, held.get(key), f"{path}.{key}" if path else key)
        for key in _COUNTED:
            if key in held and key not in sent:
                yield f"{path}.{key}" if path else key
    elif isinstance(sent, list):
        held_list = stored if isinstance(stored, list) else []
        if len(sent) != len(held_list):
            yield path
        for one, other in zip(sent, held_list, strict=False):
            yield from _differences(one, other, path)
    elif sent != stored and not _same_quantity(sent, stored):
        yield path


def _same_quantity(one: object, other: object) -> bool:
    try:
        return parse_quantity(one) == parse_quantity(other)
    except QuantityError:
        return False


GATES = {
    "allowMultipleAllocations": "DRAConsumableCapacity",
    "requestPolicy": "DRAConsumableCapacity",
    "taints": "DRADeviceTaints",
}
"""The feature gate of the API server without which it drops a field."""
EXCLUSIVE = "DRAConsumableCapacity"
"""Without it a GPU would be given to one claim alone."""


def gates_missing(dropped: Iterable[str]) -> tuple[str, ...]:
    """The gates that dropped fields need."""
    words = {word for path in dropped for word in path.split(".")}
    return tuple(dict.fromkeys(gate for word, gate in GATES.items() if word in words))


def same_but_for_order(sent: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    """Whether two specs differ in the order of their devices only."""

    def ordered(spec: Mapping[str, Any]) -> dict[str, Any]:
        listed = sorted(_dicts(spec.get("devices")), key=lambda device: str(device.get("name")))
        return {**spec, "devices": listed}

    return not difference(ordered(sent), ordered(stored))


def claim_of(document: object, driver: str) -> AllocatedClaim:
    """What a claim has of this driver's devices; ClaimError when it is not allocated or invalid."""
    try:
        found = is_a(dict, document)
        metadata = is_a(dict, found["metadata"])
        status = is_a(dict, found.get("status") or {})
        allocation = is_a(dict, status.get("allocation") or {})
        if not allocation:
            raise ClaimError("it is not allocated")
        results = is_a(list, is_a(dict, allocation.get("devices") or {}).get("results") or [])
        if len(results) > MOST_RESULTS:
            raise ClaimError(f"{len(results)} devices")
        shares = tuple(
            _share(is_a(dict, one)) for one in results if is_a(dict, one).get("driver") == driver
        )
        annotations = is_a(dict, metadata.get("annotations") or {})
        return AllocatedClaim(
            is_a(str, metadata["uid"]),
            is_a(str, metadata["namespace"]),
            is_a(str, metadata["name"]),
            shares,
            tuple(_pods(status.get("reservedFor"))),
            extended_resource=annotations.get(EXTENDED) == "true",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ClaimError(f"{type(error).__name__}: {error}") from error


def _share(result: Mapping[str, Any]) -> AllocatedShare:
    consumed = is_a(dict, result.get("consumedCapacity") or {})
    try:
        amounts = {is_a(str, name): whole_quantity(text) for name, text in consumed.items()}
    except QuantityError as error:
        raise ClaimError(str(error)) from error
    return AllocatedShare(
        # "request/subrequest" for one of several alternatives: containers name the request.
        is_a(str, result["request"]).partition("/")[0],
        is_a(str, result["pool"]),
        is_a(str, result["device"]),
        is_a(str, result.get("shareID") or ""),
        amounts,
    )


def _pods(reserved: object) -> Iterator[ClaimPod]:
    for consumer in _dicts(reserved):
        if consumer.get("resource") == "pods":
            yield ClaimPod(is_a(str, consumer["uid"]), is_a(str, consumer.get("name") or ""))


def _dicts(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
