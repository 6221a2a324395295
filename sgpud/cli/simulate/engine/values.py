"""What goes into a simulation of placement, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import field, frozen

from sgpud.cli.simulate.engine import TRIES
from sgpud.core.dra.slices import DraSettings
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.sharing.rules import Multiple, Sharing


@frozen
class PodRequest:
    """A pod that is to come: one container that asks for shares of one resource."""

    name: str
    at: float
    """When it is made, in seconds."""
    shares: int
    resource: str
    duration: float | None = None
    """Seconds from its placement to its end; None: it runs for ever."""
    uses: int | None = None
    """Bytes that it really uses on each GPU it gets; None: what its shares stand for."""


@frozen
class SimulatedDra:
    """How the nodes publish their GPUs where they are drivers of DRA."""

    settings: DraSettings
    reorder_every: float
    """Seconds between two new orders of the devices at least."""


@frozen
class Cluster:
    """The nodes: so many alike, each with these GPUs shared in this way."""

    sharing: Sharing
    gpus: tuple[Gpu, ...]
    nodes: int = 1
    tries: int = TRIES
    """Pods that are made for one request at most: a failed one is made again by its controller."""
    dra: SimulatedDra | None = None
    """None: the nodes are device plugins."""


class PodOutcome(Enum):
    """How it ended for a request."""

    PLACED = "placed"
    WAITING = "waiting"
    """No node had room for it, as the scheduler saw it, until nothing happened any more."""
    FAILED = "failed"
    """Every pod that was made for it failed on its node."""


class WaitReason(Enum):
    """Why a pod waited, at some moment."""

    FULL = "full"
    """Fewer shares were free on all nodes together."""
    SPLIT = "split"
    """Enough were free on all nodes together, but nowhere as the pod needs them."""
    UNSEEN = "unseen"
    """A node had the room, but not in the number that the scheduler had of it."""


@frozen
class PodFailure:
    """A pod that failed on its node."""

    at: float
    node: int
    rule: str
    """The rule of Allocate that refused it, or `kubelet` where the kubelet had too few shares."""
    reason: str


@frozen
class PodResult:
    """One request and what became of it."""

    request: PodRequest
    end: PodOutcome
    placed: float | None = None
    """When it was placed, in seconds."""
    ended: float | None = None
    node: int | None = None
    gpus: Mapping[int, int] = field(factory=dict)
    """How many shares of which of the node's GPUs, by position."""
    waits: tuple[WaitReason, ...] = ()
    failures: tuple[PodFailure, ...] = ()

    @property
    def waited(self) -> bool:
        """Whether it was not placed at once: a pod recreated after a failure has waited, too."""
        return self.placed is None or self.placed > self.request.at

    @property
    def split(self) -> bool:
        """Whether the free shares of all nodes would have sufficed when it waited or failed."""
        return bool(self.failures) or any(wait is not WaitReason.FULL for wait in self.waits)


@frozen
class UsageStep:
    """What a GPU had from some moment on."""

    at: float
    held: int
    """Shares."""
    memory: int
    """Bytes."""


@frozen
class GpuHistory:
    """One GPU over time."""

    node: int
    position: int
    gpu: Gpu
    resource: str
    shares: int
    """Into how many the GPU is cut."""
    each: int
    """Bytes of memory that one of them stands for; for places, an equal part."""
    multiple: Multiple
    """What several shares in one container mean."""
    uses: tuple[UsageStep, ...] = ()
    """Ascending; nothing is held before the first."""


@frozen
class SimulationResult:
    """All that happened."""

    cluster: Cluster
    entries: tuple[PodResult, ...]
    """In the order of the requests."""
    histories: tuple[GpuHistory, ...]
    """Of each shared GPU, node by node."""
    start: float
    end: float
    """Seconds: from the first arrival to the last thing that happened."""
    notes: tuple[str, ...] = ()
    """What the plan says that a person should know."""
