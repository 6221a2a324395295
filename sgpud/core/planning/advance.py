"""The node over time: grants settle, shares drain, health and the full-GPU guard are reviewed."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from sgpud.core.gpu.gpu import Gpu
from sgpud.core.health.machine import TimePassed, due
from sgpud.core.health.machine import step as step_health
from sgpud.core.health.node_health import verdict
from sgpud.core.intset import IntSet
from sgpud.core.planning.full_guard import free_steps, looked_at, next_look, watches
from sgpud.core.planning.holdings import SETTLED_AFTER, Key, held, held_shares, unsettled
from sgpud.core.planning.listing import (
    Listing,
    ListingInputs,
    memory_rooms,
    next_due,
    step,
    taken_over,
)
from sgpud.core.planning.node import Node, Trust

LATE = 5.0
"""Seconds for which a share that is no longer Healthy is still given: the kubelet may have chosen
it from the list before. Its admission of a pod takes some milliseconds from there to Allocate."""


def withheld(node: Node, gpu: Gpu) -> str:
    """Why no more shares of a GPU that is not sick are to be given, or empty."""
    watch = node.watches.get(gpu.uuid)
    full = watch.reason if watch and watch.full else ""
    return node.probe_problem or verdict(node, gpu).withheld or full


def advance(node: Node, now: float, wall: float) -> Node:
    """The node after time has passed or a fact has come: grants settled, listing stepped.

    `now` is in seconds of a monotonic clock, `wall` in seconds since the epoch. Nothing moves
    while a fact is Unknown, but healths. Calling it again at the same time changes nothing.
    """
    node = _aged(node, now)
    checkpoint = node.checkpoint
    gpus = node.gpus
    if node.sharing is None or gpus is None or checkpoint is None:
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
    terms = held_shares(checkpoint, grants)
    facts = ListingInputs(
        shared,
        tuple(dict.fromkeys(resource for resource, _ in shared)),
        held(checkpoint, grants),
        terms,
        memory_rooms(shared, terms),
        may_remove=not checkpoint.problem,
    )
    watched = {}
    if node.sharing.full_guard:
        policy = node.sharing.guard_settings
        seen = looked_at(shared, gpus, node.samples, checkpoint, grants, policy, wall)
        watched = watches(node.watches, seen, policy, node.sharing.measure_every, now)
    node = evolve(node, listing=step(listing, facts, now), watches=watched)
    since = {
        gpu.uuid: node.withheld_since.get(gpu.uuid, now) for gpu in gpus if withheld(node, gpu)
    }
    return evolve(
        node,
        grants=grants,
        withheld_since=since,
        late=_late(node.listing, since, now),
        free_steps=free_steps(gpus, node.samples, now),
        registered_taken=node.registered_taken or not checkpoint.problem,
    )


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
    begun = [part.since for block in node.listing.blocks.values() for part in block.draining]
    begun += node.withheld_since.values()
    dues += [at + LATE - now for at in begun if now < at + LATE]
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


def _late(listing: Listing, withheld_since: Mapping[str, float], now: float) -> dict[Key, IntSet]:
    """The shares that became withheld, or began to drain, so lately that they are still given."""
    found = {}
    for key, block in listing.blocks.items():
        since = withheld_since.get(key[1])
        if since is not None and now >= since + LATE:
            continue
        fresh = (part.numbers for part in block.draining if now < part.since + LATE)
        numbers = IntSet.union((*fresh, *([] if since is None else [block.active])))
        if numbers:
            found[key] = numbers
    return found
