"""What goes into a simulation of placement, and what comes out of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum

from attrs import frozen

from sgpud.cli.simulate.engine import TRIES
from sgpud.core.dra.slices import DraSettings
from sgpud.core.gpu.gpu import Gpu, matches
from sgpud.core.sharing.rules import Multiple, Sharing


class Baseline(Enum):
    """How a scheduler that sees every GPU places pods, to compare a configuration with."""

    BEST_FIT = "best-fit"
    """On the GPU with the least room that holds them."""
    FIRST_FIT = "first-fit"
    """On the first GPU, in the order of nodes and GPUs."""
    RANDOM = "random"
    """On any GPU that holds them, always the same ones for the same list."""


@frozen
class ContainerRequest:
    """What one container of a pod asks for: shares of one resource."""

    shares: int
    resource: str
    uses: int | None = None
    """Bytes that it really uses on each GPU it gets; None: what its shares stand for."""


@frozen
class PodRequest:
    """A pod that is to come."""

    name: str
    at: float
    """When it is made, in seconds."""
    containers: tuple[ContainerRequest, ...]
    duration: float | None = None
    """Seconds from its placement to its end; None: it runs for ever."""
    products: tuple[str, ...] = ()
    """Its nodes have GPUs of one of these products; none: any node."""

    @property
    def wants(self) -> tuple[tuple[str, int], ...]:
        """What the scheduler sees: the shares of each resource together."""
        total: Counter[str] = Counter()
        for each in self.containers:
            total[each.resource] += each.shares
        return tuple(total.items())


@frozen
class SimulatedDra:
    """How the nodes publish their GPUs where they are drivers of DRA."""

    settings: DraSettings
    reorder_every: float
    """Seconds between two new orders of the devices at least."""


@frozen
class Cluster:
    """The nodes, each with its GPUs, and how they are shared."""

    sharing: Sharing
    nodes: tuple[tuple[Gpu, ...], ...]
    tries: int = TRIES
    """Pods that are made for one request at most: a failed one is made again by its controller."""
    dra: SimulatedDra | None = None
    """None: the nodes are device plugins."""
    baseline: Baseline | None = None
    """What places the pods instead of the kubelet's scheduler and sgpud; None: these."""

    def allowed(self, products: Iterable[str]) -> tuple[int, ...]:
        """The nodes of which every shared GPU is one of these products; all of them for none."""
        wanted = tuple(products)
        return tuple(
            number
            for number, gpus in enumerate(self.nodes)
            if not wanted
            or all(
                any(matches(each, gpu) for each in wanted)
                for gpu in gpus
                if self.sharing.allows(gpu)
            )
        )


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
    given: tuple[Mapping[int, int], ...] = ()
    """For each container, how many shares of which of the node's GPUs, by position."""
    waits: tuple[WaitReason, ...] = ()
    failures: tuple[PodFailure, ...] = ()

    @property
    def gpus(self) -> Mapping[int, int]:
        """How many shares of which GPU its containers have together."""
        total: Counter[int] = Counter()
        for each in self.given:
            total.update(each)
        return total

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
