"""The values of the health machine: phases, what it is told, and all the ways there are."""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from sgpud.core.causes import Cause


class Phase(Enum):
    """How a GPU is."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    """Something unclear happened: no share more is given until a probe tells."""
    UNHEALTHY = "unhealthy"
    PROBATION = "probation"
    """Nothing is wrong any more, as far as known: watched before it is given out again."""


class Seen(Enum):
    """Something that may end a cause."""

    DRIVER = "the driver was loaded anew"
    RESET = "the driver no longer asks for a reset or a reboot"
    BOOT = "the node has booted"
    BACK = "the GPU is there again"
    WORD = "the operator says that it is well"


@frozen
class TimePassed:
    """Nothing happened."""


@frozen
class Edge:
    """One way from a phase to another."""

    source: Phase
    target: Phase
    when: str


_H, _S, _U, _P = Phase.HEALTHY, Phase.SUSPECT, Phase.UNHEALTHY, Phase.PROBATION
EDGES = (
    Edge(_H, _S, "a call is overdue, an unclear NVML error, XID 154"),
    Edge(_H, _U, "a cause that needs a reset or a reboot, lost, gone"),
    Edge(_H, _P, "the driver asks to drain it"),
    Edge(_S, _H, "a probe passes"),
    Edge(_S, _P, "a probe passes after flapping or probation, a drain, a boot, the operator"),
    Edge(_S, _U, "30 s without a probe that passes, or a cause as from healthy"),
    Edge(_U, _P, "the reset, boot or return is seen, the hold-down is over, the operator"),
    Edge(_P, _H, "the hold-down is over and 3 probes in a row pass"),
    Edge(_P, _S, "a call is overdue, an unclear NVML error"),
    Edge(_P, _U, "a cause as from healthy"),
)
"""All the ways there are: the diagram in docs/health.md is made of this."""


@frozen
class Health:
    """The health of one GPU. Times are seconds of the monotonic clock."""

    phase: Phase = Phase.HEALTHY
    cause: Cause | None = None
    """Why it is not healthy."""
    since: float = 0.0
    """When the phase began; 0 where it always was so."""
    hold_until: float = 0.0
    """Not healthy before."""
    passes: int = 0
    """Probes in a row that have passed in probation."""
    after: Phase = Phase.HEALTHY
    """Where a probe that passes leads from a suspicion."""
    recovery: int | None = None
    """The driver's recovery action, as it was last seen."""
    ecc: int | None = None
    """Uncorrected ECC errors, as last seen."""
    falls: tuple[float, ...] = ()
    """When it ceased to be well, lately."""
    stretch: int = 1
    """By what flapping has multiplied the hold-down."""
    served: str = ""
    """The cause that the last boot should have ended."""
    cordoned: bool = False
    """The operator keeps it from being given out."""
