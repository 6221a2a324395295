"""The frozen Node: every fact that a plan is made from. Unknown facts are None."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum

from attrs import evolve, field, frozen

from sgpud.core.allocation.injection import NodeHost
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import Sample
from sgpud.core.health.causes import HealthPolicy
from sgpud.core.health.machine import Health, TimePassed, due
from sgpud.core.health.machine import step as step_health
from sgpud.core.planning.full_guard import (
    FullState,
    Samples,
    free_steps,
    looked_at,
    next_look,
    watches,
)
from sgpud.core.planning.holdings import (
    SETTLED_AFTER,
    CheckpointState,
    Grant,
    Key,
    held,
    held_shares,
    unsettled,
)
from sgpud.core.planning.listing import (
    Listing,
    ListingInputs,
    next_due,
    partitions,
    step,
    taken_over,
)
from sgpud.core.sharing.rules import Partition, Sharing


class Trust(Enum):
    """Where the knowledge of which GPUs there are comes from."""

    CONFIRMED = "confirmed"
    """A probe has read them."""
    LAST_KNOWN = "last known"
    """From before this process; no probe has answered yet."""
    EXPIRED = "expired"
    """From before this process, and no probe has answered in time."""


@frozen
class Node:
    """All that is known of this node."""

    sharing: Sharing | None = None
    gpus: tuple[Gpu, ...] | None = None
    """In their order; as probed, or as last known."""
    driver: str = ""
    """The driver's version, or empty."""
    driver_gone: bool = False
    """Whether the kernel module was seen to be not loaded, since it was read last."""
    policy: HealthPolicy = field(factory=HealthPolicy)
    """What is made of events."""
    healths: Mapping[str, Health] = field(factory=dict)
    """By UUID, of physical GPUs and of MIG instances; one that is missing is healthy."""
    missing: frozenset[str] = frozenset()
    """UUIDs of `gpus` that the last inventory lacked: kept while they are sick or suspected."""
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
    free_steps: Mapping[str, int] = field(factory=dict)
    """Measured free memory in steps of 5 %, by UUID, where that is fresh."""
    registered_taken: bool = False
    """Whether the ids that the kubelet knew before this process were taken over: once, from the
    first books that could be read."""

    def partitions(self) -> dict[Key, Partition]:
        """How each GPU is shared as configured, by resource and UUID."""
        if self.sharing is None or self.gpus is None:
            return {}
        return partitions(self.sharing, self.gpus)

    def wanted(self) -> dict[Key, int]:
        """Shares per GPU as configured, by resource and UUID."""
        return {key: partition.shares for key, partition in self.partitions().items()}


def advance(node: Node, now: float, wall: float) -> Node:
    """The node after time has passed or a fact has come: grants settled, listing stepped.

    `now` is in seconds of a monotonic clock, `wall` in seconds since the epoch. Nothing moves
    while a fact is Unknown, but healths. Calling it again at the same time changes nothing.
    """
    node = _aged(node, now)
    checkpoint = node.checkpoint
    if node.sharing is None or node.gpus is None or checkpoint is None:
        return node
    grants = unsettled(node.grants, checkpoint, wall)
    listing = node.listing
    shared = node.partitions()
    if not node.registered_taken:
        known = (*listing.blocks, *held(checkpoint, grants))
        ours = {*node.sharing.resources, *(resource for resource, _ in known)}
        # Another plugin's shares have ids of the same form: NVIDIA's own is one.
        registered = {key: ids for key, ids in checkpoint.registered.items() if key[0] in ours}
        listing = taken_over(listing, registered)
    facts = ListingInputs(
        shared,
        tuple(dict.fromkeys(resource for resource, _ in shared)),
        held(checkpoint, grants),
        held_shares(checkpoint, grants),
        may_remove=not checkpoint.problem,
    )
    watched = {}
    if node.sharing.full_guard:
        policy = node.sharing.guard_settings
        seen = looked_at(shared, node.gpus, node.samples, checkpoint, grants, policy, wall)
        watched = watches(node.watches, seen, policy, node.sharing.measure_every, now)
    return evolve(
        node,
        grants=grants,
        listing=step(listing, facts, now),
        watches=watched,
        free_steps=free_steps(node.gpus, node.samples, now),
        registered_taken=node.registered_taken or not checkpoint.problem,
    )


def measured(node: Node, samples: Iterable[Sample], now: float) -> Node:
    """The node after memory was measured. `now`: monotonic seconds."""
    known = {gpu.uuid for gpu in node.gpus or ()}
    fresh = {one.uuid: (one, now) for one in samples if one.used is not None and one.uuid in known}
    if not fresh:
        return node
    kept = {uuid: one for uuid, one in node.samples.items() if uuid in known}
    return evolve(node, samples={**kept, **fresh})


def checkpoint_read(node: Node, checkpoint: CheckpointState) -> Node:
    """The node after the checkpoint was read.

    What the kubelet knew before this process stays in the books until it was taken over: a later
    reading need not tell it again.
    """
    if node.checkpoint is not None and not node.registered_taken and not checkpoint.registered:
        checkpoint = evolve(checkpoint, registered=node.checkpoint.registered)
    return evolve(node, checkpoint=checkpoint)


def next_turn(node: Node, now: float, wall: float) -> float | None:
    """Seconds until time alone changes something; None where nothing waits for it."""
    dues = [grant.at + SETTLED_AFTER - wall for grant in node.grants]
    dues = [left for left in dues if left > 0]
    dues += [max(0.0, at - now) for at in map(due, node.healths.values()) if at is not None]
    if node.trust is Trust.LAST_KNOWN:
        dues.append(max(0.0, node.trusted_until - now))
    look = next_look(node.watches, node.free_steps, node.samples, node.sharing)
    if look is not None:
        dues.append(max(0.0, look - now))
    listed = next_due(node.listing)
    if listed is not None and not (node.checkpoint and node.checkpoint.problem):
        dues.append(max(0.0, listed - now))
    return min(dues, default=None)


def _aged(node: Node, now: float) -> Node:
    """The node with what time alone does to its healths and to its trust."""
    overdue = {
        uuid: step_health(health, TimePassed(), node.policy, now)
        for uuid, health in node.healths.items()
        if (at := due(health)) is not None and at <= now
    }
    if overdue:
        node = evolve(node, healths={**node.healths, **overdue})
    if node.trust is Trust.LAST_KNOWN and now >= node.trusted_until:
        node = evolve(node, trust=Trust.EXPIRED)
    return node
