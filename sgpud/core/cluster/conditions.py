"""The condition of the Node that tells of unhealthy GPUs, and the Events of their changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

from sgpud.core.cluster.events import ClusterEvent, EventType, node_reference, timestamp
from sgpud.core.health.causes import advice
from sgpud.core.health.machine import HealthPhase
from sgpud.core.health.node_health import health_of, worst
from sgpud.core.planning.node import Node
from sgpud.core.text import several

CONDITION = "SharedGPUUnhealthy"
"""The type of the condition: True while a GPU that is shared is unhealthy."""
SHOWN = 4
"""GPUs that the message of the condition names."""


@frozen
class NodeCondition:
    """What the condition says."""

    status: str
    """True, False or Unknown."""
    reason: str
    message: str


def unhealthy_gpus(node: Node) -> dict[str, str]:
    """The shared GPUs that are unhealthy: by UUID, why, and what to do."""
    shared = {uuid for _, uuid in node.partitions()}
    found = {}
    for gpu in node.gpus or ():
        if gpu.uuid in shared and worst(node, gpu) is HealthPhase.UNHEALTHY:
            healths = (health_of(node, uuid) for uuid in (gpu.physical, gpu.uuid))
            cause = next(
                (one.cause for one in healths if one.phase is HealthPhase.UNHEALTHY and one.cause),
                None,
            )
            text = f"{cause}. What to do: {advice(cause, gpu.physical)}" if cause else "unhealthy"
            found[gpu.uuid] = text
    return found


def node_condition(node: Node) -> NodeCondition | None:
    """The condition as it should be; None while nothing is known of the GPUs."""
    if node.gpus is None:
        return None
    found = unhealthy_gpus(node)
    if found:
        named = [f"GPU {uuid}: {text}" for uuid, text in sorted(found.items())]
        more = f"; and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        return NodeCondition("True", "UnhealthyGPUs", "; ".join(named[:SHOWN]) + more)
    if node.probe_problem:
        return NodeCondition("Unknown", "GPUsNotRead", node.probe_problem)
    shared = len({uuid for _, uuid in node.partitions()})
    return NodeCondition("False", "HealthyGPUs", f"{several(shared, 'GPU')} shared")


def health_events(
    before: Mapping[str, str], now: Mapping[str, str], node: str
) -> Iterator[ClusterEvent]:
    """The Events of a change of `unhealthy_gpus`; `node` is the name of this Node."""
    about = node_reference(node)
    for uuid in sorted(now.keys() - before.keys()):
        yield ClusterEvent(about, "GPUUnhealthy", f"GPU {uuid} is unhealthy: {now[uuid]}")
    for uuid in sorted(before.keys() - now.keys()):
        text = f"GPU {uuid} is no longer unhealthy"
        yield ClusterEvent(about, "GPURecovered", text, EventType.NORMAL)


def condition_document(
    condition: NodeCondition, before: Mapping[str, Any], now: float
) -> dict[str, Any]:
    """A patch of the Node's status, at `now` (since the epoch); `before`: what it has of it."""
    changed = before.get("status") != condition.status or not before.get("lastTransitionTime")
    since = timestamp(now) if changed else before["lastTransitionTime"]
    one = {
        "type": CONDITION,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastHeartbeatTime": timestamp(now),
        "lastTransitionTime": since,
    }
    return {"status": {"conditions": [one]}}
