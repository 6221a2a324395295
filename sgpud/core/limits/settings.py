"""The [limits] section: how the GPU memory of containers is limited and watched."""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from sgpud.core.limits.caps import CapTerms
from sgpud.core.units import Amount

OVERUSE_ANNOTATION, SPARE = "sgpud.deepomatic.com/overuse", "spare"
"""The annotation of a pod to which nothing is done for the memory that it uses."""
PRESSURE = Amount(percent=95.0)


class MemoryLimits(Enum):
    """Whether containers get a memory limit."""

    AUTO = "auto"
    """Where they can be enforced; elsewhere it runs without one."""
    REQUIRE = "require"
    """Always: a container whose memory cannot be limited does not start."""
    OFF = "off"


class OveruseAction(Enum):
    """What is done about containers that use more GPU memory than they were granted."""

    REPORT = "report"
    """Log, status and metrics tell of it."""
    EVICT = "evict"
    """The pod of the one that exceeds its grant most is evicted, unless `dry_run` is set."""
    OFF = "off"


@frozen
class LimitSettings:
    """How memory is limited, and when a container counts as one that overuses it."""

    memory: MemoryLimits = MemoryLimits.AUTO
    factor: float = 1.0
    """A container's limit is what its shares stand for times this."""
    context: int = 0
    """Bytes that are added to it for the container's CUDA context."""
    overuse: OveruseAction = OveruseAction.REPORT
    dry_run: bool = True
    """Whether it is only said who would be evicted."""
    tolerance: int = 512 * 2**20
    """Bytes by which a container may exceed its grant."""
    over_for: float = 30.0
    """Seconds for which every sample has to show it beyond that."""
    pressure: Amount | None = PRESSURE
    """It counts only while so much of its GPU's memory is used; None: always."""
    spare: tuple[str, ...] = ("kube-system/*",)
    """Globs on NAMESPACE/POD of those that nothing will be done to."""
    cool_down: float = 60.0
    """Seconds after an eviction in which there is no other one for the same GPU."""

    @property
    def cap_terms(self) -> CapTerms:
        """How a limit follows from a grant."""
        return CapTerms(self.factor, self.context)
