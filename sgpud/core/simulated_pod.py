"""What a simulation writes down of each pod and of each GPU while it runs."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from sgpud.core.simulated_node import Given
from sgpud.core.simulation_values import End, Entry, Failure, History, Request, Use, Wait


@define
class SimulatedPod:
    """A request while it is played."""

    request: Request
    queued: int = 0
    """The step in which it began to wait."""
    tries: int = 0
    placed: float | None = None
    ended: float | None = None
    node: int | None = None
    given: Given = ()
    given_up: bool = False
    waits: set[Wait] = field(factory=set)
    failures: list[Failure] = field(factory=list)

    def entry(self, positions: Sequence[int]) -> Entry:
        """What became of it; `positions` on the node of the GPUs of its pool."""
        end = End.PLACED if self.placed is not None else End.WAITING
        return Entry(
            self.request,
            End.FAILED if self.given_up else end,
            self.placed,
            self.ended,
            self.node,
            {positions[position]: count for position, count in self.given},
            tuple(wait for wait in Wait if wait in self.waits),
            tuple(self.failures),
        )


@define
class Track:
    """What one GPU has now, and had."""

    of: History
    held: int = 0
    memory: int = 0
    uses: list[Use] = field(factory=list)

    def move(self, now: float, shares: int, memory: int) -> None:
        """Add so many shares and bytes from now on."""
        self.held += shares
        self.memory += memory
        if self.uses and self.uses[-1].at == now:
            del self.uses[-1]
        self.uses.append(Use(now, self.held, self.memory))
