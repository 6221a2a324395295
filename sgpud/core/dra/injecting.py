"""A prepared claim as a CDI spec, and the answer to the kubelet that names its devices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from sgpud.core.allocation.injection import Injection
from sgpud.core.dra.claims import PreparedClaim
from sgpud.core.dra.prepare import RequestInjection

CDI_VERSION = "0.5.0"
"""The first that has hostPath of a device node."""
SUFFIX = "/claim"
"""A spec's kind is the driver's name and this."""


@frozen
class PreparedDevice:
    """One device of an answer to NodePrepareResources."""

    request: str
    pool: str
    device: str
    share_id: str
    cdi: tuple[str, ...]
    """CDI names. The first is its own: the kubelet tells devices apart by it."""


@frozen
class InjectedClaim:
    """A prepared claim with what the container runtime and the kubelet get."""

    prepared: PreparedClaim
    spec: str
    """The CDI spec, as JSON text."""
    devices: tuple[PreparedDevice, ...]


def spec_name(driver: str, uid: str) -> str:
    """The file of a claim's spec. A name is never used again: runtimes cache what they read."""
    return f"{driver}-claim_{uid}.json"


def injected(
    prepared: PreparedClaim, driver: str, injections: Sequence[RequestInjection]
) -> InjectedClaim:
    """One CDI device for each share of each request of the claim.

    Each carries all of its request's edits, so that a container has them whole whichever of them
    the runtime applies last.
    """
    kind = f"{driver}{SUFFIX}"
    by_request = {each.request: each.injection for each in injections}
    devices, entries = [], []
    for number, share in enumerate(prepared.claim.shares):
        injection = by_request[share.request]
        name = f"{prepared.uid}-{number}"
        entries.append({"name": name, "containerEdits": _edits(injection)})
        cdi = (f"{kind}={name}", *injection.cdi)
        devices.append(PreparedDevice(share.request, share.pool, share.device, share.share_id, cdi))
    spec = {"cdiVersion": CDI_VERSION, "kind": kind, "devices": entries}
    return InjectedClaim(prepared, json.dumps(spec, indent=1) + "\n", tuple(devices))


def _edits(injection: Injection) -> Mapping[str, Any]:
    edits: dict[str, Any] = {"env": [f"{key}={value}" for key, value in injection.envs.items()]}
    if injection.devices:
        edits["deviceNodes"] = [
            {"path": node.container, "hostPath": node.host, "permissions": node.permissions}
            for node in injection.devices
        ]
    if injection.mounts:
        edits["mounts"] = [
            {
                "hostPath": mount.host,
                "containerPath": mount.container,
                "options": ["ro" if mount.read_only else "rw", "nosuid", "nodev", "rbind"],
            }
            for mount in injection.mounts
        ]
    return edits
