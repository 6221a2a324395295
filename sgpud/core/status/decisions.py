"""Decisions as people see them: what each GPU had, what was taken, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from attrs import frozen

from sgpud.core.allocation.decisions import BEST_FIT, Decision, DecisionKind, GpuCount, GpuSnapshot
from sgpud.core.sharing.rules import Multiple, Placement
from sgpud.core.status.view import NodeView

APART = 60.0
"""Seconds between a preference and the allocation that follows it, at most: the kubelet asks for
the one and, unless something hangs, for the other some milliseconds later."""
_STEP = 5
"""Percent of a step of measured free memory."""
_MULTIPLE = {
    Multiple.DISTINCT.value: "each share on another GPU",
    Multiple.SAME.value: "all shares on one GPU, or whole GPUs",
    Multiple.ANY.value: "shares on whichever GPUs",
    Multiple.REFUSE.value: "one share for one container",
}
_PLACE = {
    Placement.SPREAD.value: "first the GPU with the smallest fraction held",
    Placement.PACKED.value: "first the GPU with the largest fraction held that has room",
    BEST_FIT: "the GPU with the least room in which they fit",
}


@frozen
class GpuDecisionView:
    """One GPU of the pool as it was when something was decided. Numbers are shares."""

    gpu: str
    taken: int
    """Taken of it; of a refusal, those of it that the kubelet had chosen."""
    offered: int | None
    """What the kubelet offered of it; only a preference knows."""
    shares: int
    """Those that stay, the held ones included."""
    held: int
    elsewhere: float
    """The fraction of it that is held on other terms: of other pools, of another size."""
    free_memory: int | None
    """Measured free memory in percent, as it was compared; None: not measured lately."""
    availability: str
    reason: str


@frozen
class DecisionView:
    """One decision."""

    at: float
    """Seconds since the epoch."""
    kind: str
    """preference, allocation or refusal."""
    resource: str
    asked: int
    rule: str
    why: str
    """The rule in words, or what stood against it."""
    gpus: tuple[GpuDecisionView, ...]
    holder: str = ""
    """`namespace/pod/container` that an allocation was for, once it is known and while it holds."""


def decision_view(one: Decision, seen: NodeView) -> DecisionView:
    """A decision for people; `seen` knows who holds what."""
    taken = {part.uuid: part for part in one.parts}
    rows = [
        _row(gpu_snapshot, taken.pop(gpu_snapshot.uuid, None), offered)
        for gpu_snapshot, offered in zip_longest(
            one.gpu_snapshots, one.offered[: len(one.gpu_snapshots)]
        )
    ]
    return DecisionView(
        one.at,
        one.kind.value,
        one.resource,
        one.asked,
        one.rule,
        _why(one),
        tuple(rows),
        _holder(one, seen),
    )


def _holder(one: Decision, seen: NodeView) -> str:
    """The container that was granted this; empty where several may have been, or none is known.

    The time is compared in whole seconds: the kubelet's record has no more.
    """
    if one.kind is not DecisionKind.ALLOCATION:
        return ""
    wanted = {(part.uuid, part.count) for part in one.parts}
    found: dict[str, set[tuple[str, int]]] = {}
    for pool in seen.pools:
        for gpu in pool.gpus if pool.resource == one.resource else ():
            for each in gpu.holders:
                if each.pod and int(each.since) == int(one.at):
                    name = f"{each.namespace}/{each.pod}/{each.container}"
                    found.setdefault(name, set()).add((gpu.uuid, each.shares))
    names = [name for name, held in found.items() if held == wanted]
    return names[0] if len(names) == 1 else ""


def choice_of(allocation: Decision, decisions: Sequence[Decision]) -> Decision | None:
    """The preference that the kubelet followed in an allocation; None where it did not ask."""
    before = [
        one
        for one in decisions
        if one.kind is DecisionKind.PREFERENCE
        and one.resource == allocation.resource
        and 0 <= allocation.at - one.at <= APART
        and set(one.parts) == set(allocation.parts)
    ]
    return max(before, key=lambda one: one.at, default=None)


def _row(gpu_snapshot: GpuSnapshot, part: GpuCount | None, offered: int | None) -> GpuDecisionView:
    return GpuDecisionView(
        gpu=gpu_snapshot.uuid,
        taken=part.count if part else 0,
        offered=offered,
        shares=gpu_snapshot.shares,
        held=gpu_snapshot.held,
        elsewhere=round(gpu_snapshot.elsewhere, 3),
        free_memory=None if gpu_snapshot.measured is None else gpu_snapshot.measured * _STEP,
        availability=gpu_snapshot.availability,
        reason=gpu_snapshot.reason,
    )


def _why(one: Decision) -> str:
    if one.kind is DecisionKind.REFUSAL or one.text:
        return one.text
    if one.rule == BEST_FIT:
        return f"memory shares are of one GPU: {_PLACE[BEST_FIT]}"
    multiple, _, place = one.rule.partition(", ")
    if one.kind is DecisionKind.ALLOCATION:
        return f"the kubelet chose them, and [sharing] multiple ({_MULTIPLE[multiple]}) allows it"
    return f"{_MULTIPLE[multiple]}; {_PLACE[place]}{_short(one, multiple)}"


def _short(one: Decision, multiple: str) -> str:
    """What a preference could not keep, since what was offered did not have it."""
    if multiple == Multiple.DISTINCT.value and len(one.parts) < one.asked:
        return f": only {len(one.parts)} had one, so that Allocate refuses this"
    if multiple == Multiple.SAME.value and len(one.parts) > 1 and not _whole(one):
        return f": no GPU had {one.asked}, so that Allocate refuses this"
    if multiple == Multiple.REFUSE.value and one.asked > 1:
        return ": Allocate refuses more"
    return ""


def _whole(one: Decision) -> bool:
    """Whether whole GPUs were taken, for a request that no single one can hold."""
    sizes = {each.uuid: each.shares for each in one.gpu_snapshots}
    alike = len({part.count for part in one.parts}) == 1
    return (
        alike
        and all(part.count == sizes.get(part.uuid) for part in one.parts)
        and one.asked > max(sizes.values())
    )
