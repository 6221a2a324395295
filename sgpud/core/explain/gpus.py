"""How a GPU or a share stands, who holds it, and how it came to that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import asdict

from sgpud.core.allocation.decisions import Decision, DecisionKind
from sgpud.core.explain.sentences import (
    Findings,
    HeldView,
    all_held,
    allocations_of,
    enforcement_sentences,
    health_sentences,
    moment,
    overuse_sentences,
    shares,
)
from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import Holder
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Availability, GpuShares, Plan
from sgpud.core.sharing.share_id import share_id
from sgpud.core.status.pools import PoolGpuView
from sgpud.core.status.view import NodeView
from sgpud.core.text import count_shares

_STANDINGS = {
    Availability.AVAILABLE: "",
    Availability.WITHHELD: "its GPU's free shares are withheld",
    Availability.UNHEALTHY: "its GPU is unhealthy",
}


def about_share(
    share: tuple[str, int], node: Node, plan: Plan | None, decisions: Sequence[Decision]
) -> Findings:
    """Whether a share is listed and how, who holds it, and when it was given or refused."""
    uuid, number = share
    listed = [
        sentence
        for pool in (plan.pools if plan else ())
        for group in pool.lists
        if group.uuid == uuid and number in group.listed
        for sentence in _listed(pool.resource, group, number)
    ]
    unlisted = (
        f"{share_id(*share)} is not listed: it never was, or nobody held it and it left the list"
        " 30 s after the configuration or the GPU no longer had it."
    )
    recorded = _recorded(share, node)
    # More than one where another plugin, or a kubelet that lost its record, gave it out twice.
    held = tuple(_held(share, holder) for holder in recorded) or _fresh(share, node)
    sentences = (listed or [unlisted]) + ([_holds(one) for one in held] or ["Nobody holds it."])
    gave = allocations_of(recorded, decisions)
    concerns = tuple(
        one
        for one in decisions
        if one in gave
        or (
            one.kind is not DecisionKind.PREFERENCE
            and any(part.uuid == uuid and part.first == number for part in one.parts)
        )
    )
    return Findings("share", tuple(sentences), held, concerns)


def about_gpu(uuid: str, seen: NodeView, decisions: Sequence[Decision]) -> Findings:
    """How a GPU stands in each pool, how it is, who holds its shares, and what was decided."""
    parts = [gpu.uuid for gpu in seen.gpus if gpu.physical == uuid and gpu.uuid != uuid]
    sentences = health_sentences(uuid, seen, healthy=True)
    if parts:
        sentences.append(f"{uuid} is divided into MIG instances: {', '.join(parts)}.")
    shared = [
        sentence
        for pool in seen.pools
        for gpu in pool.gpus
        if gpu.uuid in {uuid, *parts}
        for sentence in _stands(pool.resource, gpu)
    ]
    sentences += shared or [f"{uuid} is not shared: no rule of the configuration selects it."]
    taken = tuple(
        one
        for one in decisions
        if one.kind is not DecisionKind.PREFERENCE
        and any(part.uuid in {uuid, *parts} for part in one.parts)
    )
    sentences += enforcement_sentences(seen, {uuid, *parts})
    sentences += overuse_sentences(seen, {uuid, *parts})
    sentences += _passed_over(uuid, decisions)
    holders = tuple(one for one in all_held(seen) if one.gpu in {uuid, *parts})
    return Findings("gpu", tuple(sentences), holders, taken)


def _listed(resource: str, group: GpuShares, number: int) -> Iterator[str]:
    name = share_id(group.uuid, number)
    health = "Healthy" if number in group.healthy else "Unhealthy"
    if number in group.draining:
        why = ", because it is on its way out of the list (draining)"
    elif group.shown is not None and health == "Unhealthy":
        held = number in group.held
        why = ", because " + (
            "the GPU that it is bound to is unhealthy" if held else "no GPU has room for that many"
        )
    elif health == "Unhealthy":
        why = f", because {_STANDINGS[group.availability]}: {group.reason}"
    elif group.availability is Availability.WITHHELD:
        why = f", because it is held, although {_STANDINGS[group.availability]}: {group.reason}"
    else:
        why = ""
    yield f"{name} is a share of {resource}, listed {health}{why}."


def _recorded(share: tuple[str, int], node: Node) -> tuple[Holder, ...]:
    """The holder of a share in the kubelet's checkpoint."""
    uuid, number = share
    holders = node.checkpoint.holders if node.checkpoint else ()
    return tuple(one for one in holders if number in one.shares.get(uuid, IntSet()))


def _held(share: tuple[str, int], holder: Holder) -> HeldView:
    uuid = holder.gpu or share[0]
    count = holder.count_on(uuid)
    names = (holder.namespace, holder.name, holder.pod, holder.container)
    size = count * holder.sizes.get(uuid, 0)
    return HeldView(*names, count, size, holder.since, holder.resource, uuid)


def _fresh(share: tuple[str, int], node: Node) -> tuple[HeldView, ...]:
    """The holder of a share granted a moment ago, which the checkpoint does not name yet."""
    stem, number = share
    found = []
    for one in node.grants:
        if number in one.shares.get(stem, IntSet()):
            uuid = one.gpu or stem
            size = one.sizes.get(uuid, 0)
            found.append(HeldView("", "", "", "", 1, size, one.at, one.resource, uuid))
    return tuple(found)


def _holds(one: HeldView) -> str:
    of = f", as one of {shares(one.shares)} of {one.gpu}" if one.shares > 1 else ""
    return f"{one.named} holds it{of}{f', since {moment(one.since)}' if one.since else ''}."


def _stands(resource: str, gpu: PoolGpuView) -> Iterator[str]:
    reason = f": {gpu.reason}" if gpu.reason else ""
    yield (
        f"{gpu.uuid} ({gpu.product or 'a GPU that is gone'}) is {gpu.availability} in {resource}"
        f"{reason}: {count_shares(asdict(gpu))}."
    )


def _passed_over(uuid: str, decisions: Sequence[Decision]) -> list[str]:
    """How often it was chosen of those preferences in which it could have been."""
    able, taken = 0, 0
    for one in decisions:
        offered = [
            count
            for gpu_snapshot, count in zip(one.gpu_snapshots, one.offered, strict=False)
            if gpu_snapshot.uuid == uuid
        ]
        if one.kind is DecisionKind.PREFERENCE and any(offered):
            able += 1
            taken += any(part.uuid == uuid for part in one.parts)
    if not able:
        return []
    return [f"Of the last {able} times that the kubelet offered shares of it, {taken} took some."]
