"""What people see of the healths of a node's GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from sgpud.core.causes import advice
from sgpud.core.healths import health_of
from sgpud.core.node import Node

SHOWN = 3
"""GPUs that a status line names; it is one line."""


@frozen
class HealthView:
    """How one GPU is: a physical one, or a MIG instance."""

    uuid: str
    health: str
    """healthy, suspect, unhealthy or probation."""
    reason: str
    """Why it is not healthy, or empty."""
    advice: str
    """What a person should do, or empty."""
    cordoned: bool
    cause: str = ""
    """The name of the reason alone, e.g. `XID 79`, or empty."""


def healths(node: Node) -> tuple[HealthView, ...]:
    """The health of every GPU, and of the physical GPUs of MIG instances."""
    found = []
    known = {uuid: gpu for gpu in node.gpus or () for uuid in (gpu.physical, gpu.uuid)}
    for uuid, gpu in known.items():
        health = health_of(node, uuid)
        cause = health.cause
        found.append(
            HealthView(
                uuid,
                health.phase.value,
                str(cause) if cause else "",
                advice(cause, gpu.physical) if cause else "",
                health.cordoned,
                cause.name if cause else "",
            )
        )
    return tuple(found)


def troubles(seen: Sequence[HealthView]) -> list[str]:
    """What is not as it should be, for a status line."""
    troubled = [one for one in seen if one.cordoned or one.reason]
    parts = [
        f"{one.uuid} {one.health}{f' ({one.reason})' if one.reason else ''}"
        f"{', cordoned' if one.cordoned else ''}"
        for one in troubled[:SHOWN]
    ]
    if len(troubled) > SHOWN:
        parts.append(f"and {len(troubled) - SHOWN} more GPUs not as they should be")
    return parts
