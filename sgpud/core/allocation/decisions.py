"""Decisions: what the kubelet asked, what there was of each GPU, and what was answered and why.

The latest are kept in memory for `sgpud explain` and the page. They are recorded in gRPC's threads
and must be cheap: the GPU snapshots are made once per plan, and of the ids that a request names
only counts are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum

from attrs import frozen

from sgpud.core.allocation.allocate import SHIFT, Allocation, IdIndex, RefusedError
from sgpud.core.allocation.preference import Preference
from sgpud.core.intset import IntSet
from sgpud.core.planning.plan import GpuShares, Plan, Pool

KEPT = 1000
"""Decisions that are kept."""
LONGEST_TEXT = 600
"""Characters that are kept of the sentence of a refusal."""
BEST_FIT = "best fit"
"""The rule of memory shares: the GPU with the least room that holds them."""
_NUMBER = (1 << SHIFT) - 1


class DecisionKind(Enum):
    """What was answered."""

    PREFERENCE = "preference"
    """Which shares sgpud would take, of those that the kubelet offered."""
    ALLOCATION = "allocation"
    """The shares that the kubelet chose were given."""
    REFUSAL = "refusal"
    """The shares that the kubelet chose were refused: the pod failed."""


@frozen
class GpuSnapshot:
    """What a plan has of one GPU of a pool."""

    uuid: str
    availability: str
    """available, withheld or unhealthy."""
    reason: str
    shares: int
    """Shares that stay, the held ones included."""
    held: int
    elsewhere: float
    """The fraction of the GPU that is held on other terms."""
    measured: int | None
    """Measured free memory in steps of 5 % of the GPU's; None: not measured lately."""


@frozen
class GpuCount:
    """The shares of one GPU in a decision."""

    uuid: str
    count: int
    first: int
    """The lowest of their numbers: it tells a decision from others alike."""


@frozen
class Decision:
    """One answer to the kubelet."""

    at: float
    """Seconds since the epoch."""
    kind: DecisionKind
    resource: str
    asked: int
    """Shares that the container asked for."""
    parts: tuple[GpuCount, ...]
    """What was taken of each GPU; of a refusal, what the kubelet had chosen."""
    rule: str
    """The rule that chose, allowed or refused."""
    text: str = ""
    """What more there is to say, or empty."""
    gpu_snapshots: tuple[GpuSnapshot, ...] = ()
    """Every GPU of the pool in the plan that was answered from; none before the first plan."""
    offered: tuple[int, ...] = ()
    """Of a preference: shares that the kubelet offered of each GPU of `gpu_snapshots`."""


def gpu_snapshots(pool: Pool, previous: Sequence[GpuSnapshot] = ()) -> tuple[GpuSnapshot, ...]:
    """A snapshot of each of the pool's GPUs; those of `previous` that are unchanged are reused."""
    known = {gpu_snapshot.uuid: gpu_snapshot for gpu_snapshot in previous}
    return tuple(_gpu_snapshot(group, known.get(group.uuid)) for group in pool.groups)


def preferred(
    at: float, plan: Plan, pool: Pool, seen: Sequence[GpuSnapshot], one: Preference
) -> Decision:
    """What was preferred, out of what was offered."""
    parts = tuple(
        GpuCount(gpu_snapshot.uuid, len(taken), min(taken))
        for gpu_snapshot, taken in zip(seen, one.taken, strict=True)
        if taken
    )
    rule = f"{pool.multiple.value}, {plan.placement.value}"
    asked = len(one.ids)
    return Decision(
        at, DecisionKind.PREFERENCE, pool.resource, asked, parts, rule, "", tuple(seen), one.offered
    )


def failed(at: float, resource: str, asked: int, problem: str) -> Decision:
    """No choice could be made; answered were the first shares that were offered."""
    text = f"choosing failed ({problem}): the first that were offered were answered"[:LONGEST_TEXT]
    return Decision(at, DecisionKind.PREFERENCE, resource, asked, (), "none", text)


def given(at: float, pool: Pool, seen: tuple[GpuSnapshot, ...], granted: Allocation) -> Decision:
    """What a container was given."""
    parts = tuple(parts_of(granted.shares, granted.gpu))
    asked = sum(part.count for part in parts)
    rule = BEST_FIT if granted.gpu else pool.multiple.value
    return Decision(at, DecisionKind.ALLOCATION, pool.resource, asked, parts, rule, "", seen)


def parts_of(shares: Mapping[str, IntSet], gpu: str) -> Iterator[GpuCount]:
    """The shares of each GPU, from their numbers by stem; all of `gpu` where that is not empty."""
    if gpu:
        first = min(numbers.ranges[0][0] for numbers in shares.values())
        yield GpuCount(gpu, sum(map(len, shares.values())), first)
        return
    for uuid, numbers in shares.items():
        yield GpuCount(uuid, len(numbers), numbers.ranges[0][0])


def refused(
    at: float,
    resource: str,
    asked: Iterable[str],
    seen: tuple[GpuSnapshot, ...],
    known: IdIndex | None,
    refusal: RefusedError,
) -> Decision:
    """What a container was refused."""
    wanted = tuple(asked)
    parts = _counted(wanted, known.places if known else {}, seen)
    text = refusal.text.rstrip(": ").removesuffix("; shares")[:LONGEST_TEXT]
    rule = refusal.rule.value
    return Decision(at, DecisionKind.REFUSAL, resource, len(wanted), parts, rule, text, seen)


def _gpu_snapshot(group: GpuShares, known: GpuSnapshot | None) -> GpuSnapshot:
    found = GpuSnapshot(
        group.uuid,
        group.availability.value,
        group.reason,
        group.given + group.unheld,
        group.given,
        float(group.elsewhere),
        group.measured,
    )
    return known if known == found else found


def _counted(
    ids: Iterable[str], places: Mapping[str, int], seen: Sequence[GpuSnapshot]
) -> tuple[GpuCount, ...]:
    """How many of the ids are shares of which GPU; those that nobody lists are left out."""
    numbers: dict[int, list[int]] = {}
    for item in ids:
        place = places.get(item)
        if place is not None:
            numbers.setdefault(place >> SHIFT, []).append(place & _NUMBER)
    return tuple(
        GpuCount(seen[position].uuid, len(found), min(found))
        for position, found in sorted(numbers.items())
        if position < len(seen)
    )
