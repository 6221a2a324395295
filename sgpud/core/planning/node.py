"""The frozen Node: every fact that a plan is made from. Unknown facts are None."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from attrs import evolve, field, frozen

from sgpud.core.allocation.injection import NodeHost
from sgpud.core.gpu.gpu import Gpu, UnreadableGpu
from sgpud.core.gpu.observations import Sample
from sgpud.core.health.causes import HealthPolicy
from sgpud.core.health.machine import Health
from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import CapTerms, knows_limits, possible_caps
from sgpud.core.limits.overuse import OveruseState
from sgpud.core.limits.pod_caps import CapFacts
from sgpud.core.limits.settings import LimitSettings, MemoryLimits
from sgpud.core.planning.full_guard import FullState, Samples
from sgpud.core.planning.holdings import CheckpointState, Grant, Key
from sgpud.core.planning.listing import Listing, partitions
from sgpud.core.sharing.rules import Partition, Sharing


class Trust(Enum):
    """Where the knowledge of which GPUs there are comes from."""

    CONFIRMED = "confirmed"
    """A probe has read them."""
    LAST_KNOWN = "last known"
    """From before this process; no probe has answered yet."""
    EXPIRED = "expired"
    """From before this process, and no probe has answered in time."""


class Switching(Enum):
    """What is held back while the node goes from one of [kubelet] api to the other."""

    NO = "none"
    """Nothing."""
    FREE = "free"
    """No GPU is given any more."""
    ALL = "all"
    """The shares that pods hold are Unhealthy, too: the scheduler sees none."""


@frozen
class Node:
    """All that is known of this node."""

    sharing: Sharing | None = None
    gpus: tuple[Gpu, ...] | None = None
    """In their order; as probed, or as last known."""
    unreadable: tuple[UnreadableGpu, ...] = ()
    """GPUs that NVML counts and that cannot be shared, as last probed."""
    driver: str = ""
    """The driver's version, or empty."""
    driver_gone: bool = False
    """Whether the kernel module was seen to be not loaded, since it was read last."""
    policy: HealthPolicy = field(factory=HealthPolicy)
    """What is made of events."""
    limits: LimitSettings = field(factory=LimitSettings)
    """How memory is limited and watched."""
    healths: Mapping[str, Health] = field(factory=dict)
    """By UUID, of physical GPUs and of MIG instances; one that is missing is healthy."""
    missing: frozenset[str] = frozenset()
    """UUIDs of `gpus` that the last inventory lacked: kept while they are unhealthy or suspect."""
    trust: Trust = Trust.CONFIRMED
    trusted_until: float = 0.0
    """When GPUs that are known from before are trusted no more, in monotonic seconds."""
    probe_problem: str = ""
    """Why nothing fresh is known of the GPUs (released, no driver, …), or empty."""
    host: NodeHost = field(factory=NodeHost)
    checkpoint: CheckpointState | None = None
    grants: tuple[Grant, ...] = ()
    listing: Listing = field(factory=Listing)
    samples: Samples = field(factory=dict)
    """The last measurement of each GPU's memory, and when."""
    watches: Mapping[str, FullState] = field(factory=dict)
    """What the full-GPU guard has decided, by UUID."""
    overuse: Mapping[str, OveruseState] = field(factory=dict)
    """The GPUs of which containers use more than they were granted, by UUID."""
    spared: Mapping[str, str] = field(factory=dict)
    """Pods to which nothing is done for the memory that they use, by UID, and why: as far as the
    API server tells."""
    capping: CapFacts = field(factory=CapFacts)
    """What is known of the memory caps of pods."""
    free_steps: Mapping[str, int] = field(factory=dict)
    """Measured free memory in steps of 5 %, by UUID, where that is fresh."""
    withheld_since: Mapping[str, float] = field(factory=dict)
    """Since when no more shares of a GPU are given, by UUID, in monotonic seconds."""
    late: Mapping[Key, IntSet] = field(factory=dict)
    """Shares that are no longer Healthy, but still given: the kubelet may have chosen them from
    the list before."""
    switching: Switching = Switching.NO
    registered_taken: bool = False
    """Whether the ids that the kubelet knew before this process were taken over: once, from the
    first checkpoint that could be read."""

    def partitions(self) -> dict[Key, Partition]:
        """How each GPU is shared as configured, by resource and UUID."""
        if self.sharing is None or self.gpus is None:
            return {}
        return partitions(self.sharing, self.gpus)

    @property
    def cap_terms(self) -> CapTerms | None:
        """How a container's memory limit follows from what its shares stand for; None: it has none.

        None where the toolkit's hook would fail, and the container with it.
        """
        able = knows_limits(self.driver) and not self.host.cgroup_problem
        return (
            self.limits.cap_terms if able and self.limits.memory is not MemoryLimits.OFF else None
        )

    @property
    def asked_before_start(self) -> bool:
        """Whether the kubelet asks before it starts a container with memory shares.

        With "auto" only where there is a helper: while nobody answers, no container starts.
        """
        memory = self.limits.memory
        return memory is MemoryLimits.REQUIRE or (
            memory is MemoryLimits.AUTO and self.capping.installed
        )

    def held_caps(self) -> frozenset[int]:
        """The memory caps, in MiB, that containers were given as CDI devices.

        While who holds what is not known for certain, every one that has a device keeps it: a
        container that restarts needs it again.
        """
        checkpoint = self.checkpoint
        if checkpoint is None or checkpoint.problem or self.grants:
            return self.host.caps
        return frozenset(holder.cap for holder in checkpoint.holders if holder.cap)

    def caps(self) -> frozenset[int]:
        """Those, and the caps that containers can be given now."""
        terms = self.cap_terms
        if terms is None or self.sharing is None:
            return self.held_caps()
        present = {gpu.uuid: self.sharing.sized(gpu) for gpu in self.gpus or ()}
        counts = [
            *((key[1], each.size, each.shares) for key, each in self.partitions().items()),
            # What drains is still given.
            *((key[1], each.size, len(each.listed)) for key, each in self.listing.blocks.items()),
        ]
        sizes: dict[tuple[Gpu, int], int] = {}
        for stem, size, count in counts:
            # Ids that name no GPU are bound to any.
            gpus = [present[stem]] if stem in present else present.values()
            for key in [(gpu, size) for gpu in gpus if size]:
                sizes[key] = max(count, sizes.get(key, 0))
        return self.held_caps() | possible_caps(sizes, terms)

    def wanted(self) -> dict[Key, int]:
        """Shares per GPU as configured, by resource and UUID."""
        return {key: partition.shares for key, partition in self.partitions().items()}


def measured(node: Node, samples: Iterable[Sample], now: float) -> Node:
    """The node after GPUs were measured. `now`: monotonic seconds."""
    known = {gpu.uuid for gpu in node.gpus or ()}
    # What NVML does not report is None in a sample; a failed one replaces none.
    fresh = {one.uuid: (one, now) for one in samples if not one.error and one.uuid in known}
    if not fresh:
        return node
    kept = {uuid: one for uuid, one in node.samples.items() if uuid in known}
    return evolve(node, samples={**kept, **fresh})


def checkpoint_read(node: Node, checkpoint: CheckpointState) -> Node:
    """The node after the checkpoint was read.

    What the kubelet knew before this process stays until it was taken over: a later reading need
    not contain it.
    """
    if node.checkpoint is not None and not node.registered_taken and not checkpoint.registered:
        checkpoint = evolve(checkpoint, registered=node.checkpoint.registered)
    return evolve(node, checkpoint=checkpoint)
