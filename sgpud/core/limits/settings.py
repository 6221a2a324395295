"""The [limits] section: how the GPU memory of containers is limited."""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class MemoryLimits(Enum):
    """Whether containers get a memory limit."""

    AUTO = "auto"
    """Where driver and container toolkit can enforce it."""
    OFF = "off"


@frozen
class LimitSettings:
    """How the memory of containers is limited."""

    memory: MemoryLimits = MemoryLimits.AUTO
    factor: float = 1.0
    """A container's limit is what its shares stand for times this."""
