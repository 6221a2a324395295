"""What a simulation writes down of each pod and of each GPU while it runs."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from sgpud.cli.simulate.engine.node import Given
from sgpud.cli.simulate.engine.values import (
    GpuHistory,
    PodFailure,
    PodOutcome,
    PodRequest,
    PodResult,
    UsageStep,
    WaitReason,
)


@define
class SimulatedPod:
    """A request while it is played."""

    request: PodRequest
    queued: int = 0
    """The step in which it began to wait."""
    tries: int = 0
    placed: float | None = None
    ended: float | None = None
    node: int | None = None
    given: Given = ()
    given_up: bool = False
    waits: set[WaitReason] = field(factory=set)
    failures: list[PodFailure] = field(factory=list)

    def entry(self, positions: Sequence[int]) -> PodResult:
        """What became of it; `positions` on the node of the GPUs of its pool."""
        end = PodOutcome.PLACED if self.placed is not None else PodOutcome.WAITING
        return PodResult(
            self.request,
            PodOutcome.FAILED if self.given_up else end,
            self.placed,
            self.ended,
            self.node,
            {positions[position]: count for position, count in self.given},
            tuple(wait for wait in WaitReason if wait in self.waits),
            tuple(self.failures),
        )


@define
class GpuTrack:
    """What one GPU has now, and had."""

    of: GpuHistory
    held: int = 0
    memory: int = 0
    uses: list[UsageStep] = field(factory=list)

    def move(self, now: float, shares: int, memory: int) -> None:
        """Add so many shares and bytes from now on."""
        self.held += shares
        self.memory += memory
        if self.uses and self.uses[-1].at == now:
            del self.uses[-1]
        self.uses.append(UsageStep(now, self.held, self.memory))
