"""What explanations have in common: who holds shares, when, and what stands against new pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from datetime import datetime, timezone

from attrs import asdict, frozen

from sgpud.core.allocation.decisions import Decision, DecisionKind, parts_of
from sgpud.core.limits.enforcement import EnforcementKind
from sgpud.core.planning.holdings import Holder
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Availability, Plan, Pool
from sgpud.core.registration.events import RegistrationPhase
from sgpud.core.sharing.rules import Multiple
from sgpud.core.status.pools import HolderView, PoolView
from sgpud.core.status.view import NodeView
from sgpud.core.units import format_size


@frozen
class HeldView(HolderView):
    """What a container holds of one GPU."""

    resource: str
    gpu: str

    @property
    def named(self) -> str:
        """The container, as a person would name it."""
        pod = f"{self.namespace}/{self.pod}" if self.pod else self.uid
        return f"{pod}/{self.container}" if pod else "a container that is being started"


@frozen
class Findings:
    """What there is to say about a pod, a share or a GPU."""

    subject: str
    answer: tuple[str, ...]
    holders: tuple[HeldView, ...] = ()
    decisions: tuple[Decision, ...] = ()


def all_held(seen: NodeView) -> Iterator[HeldView]:
    """Everything that is held, by resource, GPU and container."""
    for pool in seen.pools:
        for gpu in pool.gpus:
            for one in gpu.holders:
                yield HeldView(**asdict(one), resource=pool.resource, gpu=gpu.uuid)


def health_sentences(uuid: str, seen: NodeView, *, healthy: bool) -> list[str]:
    """The health of a GPU now, and of its physical GPU; what to do about it.

    `healthy`: whether to say so of a healthy one.
    """
    physical = next((gpu.physical for gpu in seen.gpus if gpu.uuid == uuid), uuid)
    found = []
    for health in seen.healths:
        if health.uuid in {uuid, physical}:
            cause = f": {health.reason}" if health.reason else ""
            todo = f". To do: {health.advice}" if health.advice else ""
            if healthy or health.reason:
                found.append(f"{health.uuid} is {health.health}{cause}{todo}.")
            found += [
                f"{health.uuid} is cordoned: `sgpud uncordon {health.uuid}` ends it."
            ] * health.cordoned
    missing = any(gpu.uuid == uuid and gpu.missing for gpu in seen.gpus)
    return found or [f"{uuid} is missing: the driver does not report it."] * missing


_ENFORCED = {
    EnforcementKind.TOOLKIT.value: "Memory limits apply on",
    EnforcementKind.DMEM.value: "Memory limits apply on",
    EnforcementKind.MISC.value: "Memory limits apply on",
    EnforcementKind.WATCH.value: "Use of memory beyond the grant is reported, not prevented, on",
    EnforcementKind.NONE.value: "Nothing limits how much memory a container uses of",
}


def enforcement_sentences(seen: NodeView, gpus: Container[str]) -> list[str]:
    """What keeps containers within their memory, of those of these GPUs that are shared."""
    shared = {gpu.uuid for pool in seen.pools for gpu in pool.gpus}
    return [
        f"{_ENFORCED[gpu.enforcement]} {gpu.uuid}: {gpu.enforcement_reason}."
        + (f" {gpu.enforcement_remedy}" if gpu.enforcement_remedy else "")
        for gpu in seen.gpus
        if gpu.uuid in gpus and gpu.uuid in shared
    ]


def cap_sentences(node: Node, pod: str, gpu: str) -> list[str]:
    """What limits the memory of the pod with this UID on a GPU, as far as sgpud sets it."""
    one = node.capping.caps.get((pod, gpu))
    if one is None:
        return []
    if one.waits:
        why = f'[limits] memory is "require", and its memory of {gpu} cannot be limited'
        return [f"A container of it waits: {why}: {one.problem}. The kubelet tries again."]
    if one.problem:
        return [f"Its memory of {gpu} is not limited: {one.problem}."]
    if one.limit is None:
        return [f"Its memory of {gpu} is not limited yet: that is done within seconds."]
    used = f", of which {format_size(one.used)} are used" if one.used is not None else ""
    late = "; what it had allocated before that was set does not count" if one.late else ""
    return [f"Its memory of {gpu} is limited to {format_size(one.limit)}{used}{late}."]


def overuse_sentences(seen: NodeView, gpus: Container[str], pod: str = "") -> list[str]:
    """Which containers overuse the memory of these GPUs; with a `pod`'s UID, which of its own."""
    return [
        f"{one.namespace}/{one.pod or one.uid}/{one.container} has used {format_size(one.over)}"
        f" more memory of {gpu.uuid} than it was granted for {one.over_for:.0f} s: {one.verdict}."
        for gpu in seen.gpus
        if gpu.uuid in gpus
        for one in gpu.containers
        if one.over_for is not None and one.over and pod in {"", one.uid}
    ]


def moment(at: float) -> str:
    """A time as people read it, in UTC."""
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def shares(count: int) -> str:
    """`1 share`, `2 shares`."""
    return f"{count} share{'' if count == 1 else 's'}"


def allocations_of(
    holders: Iterable[Holder], decisions: Iterable[Decision]
) -> tuple[Decision, ...]:
    """The allocations that gave these holders what they hold, as far as they are remembered.

    The time is compared in whole seconds: that is what the container was told.
    """
    known = {
        (holder.resource, int(holder.since), frozenset(parts_of(holder.shares, holder.gpu)))
        for holder in holders
    }
    return tuple(
        one
        for one in decisions
        if one.kind is DecisionKind.ALLOCATION
        and (one.resource, int(one.at), frozenset(one.parts)) in known
    )


def obstacles(plan: Plan | None, seen: NodeView) -> list[str]:
    """What a pod that asks for a share meets on this node now, resource by resource."""
    if seen.serving != "serving":
        return [f"This sgpud does not serve the node now ({seen.serving})."]
    if plan is None:
        waits = ", ".join(seen.unknown)
        return [f"Nothing is advertised yet: sgpud does not know the {waits} of this node."]
    if not plan.pools:
        return [seen.probe or "No GPU of this node is shared, so no pod can get one."]
    views = {view.resource: view for view in seen.pools}
    return [
        sentence
        for pool in plan.pools
        if not pool.dropped and pool.resource in views
        for sentence in _met(pool, views[pool.resource])
    ]


def _met(pool: Pool, view: PoolView) -> Iterator[str]:
    if view.registration != RegistrationPhase.LIVE.value:
        problem = f": {view.problem}" if view.problem else ""
        yield (
            f"{pool.resource} is not registered with the kubelet ({view.registration}{problem}):"
            " the node shows none of it, and pods that ask for it stay Pending."
        )
    free = [group.unheld for group in pool.groups if group.availability is Availability.AVAILABLE]
    if not sum(free):
        yield (
            f"{pool.resource}: no share can be given now ({view.held} are held): pods that ask for"
            " it stay Pending, or fail until the scheduler learns of it (up to 10 s)."
        )
    else:
        most, why = _largest(pool, free)
        yield (
            f"{pool.resource}: {shares(sum(free))} can be given now, up to {most} to one container"
            f" ({why}). A request for more fails on this node."
        )
    for group in pool.groups:
        if group.availability is not Availability.AVAILABLE:
            yield f"{pool.resource}: {group.uuid} is {group.availability.value}: {group.reason}."


def _largest(pool: Pool, free: list[int]) -> tuple[int, str]:
    """The most shares that one container can get, and by which rule."""
    if pool.memory:
        return max(free), "memory shares are of one GPU"
    by = f'multiple = "{pool.multiple.value}"'
    if pool.multiple is Multiple.DISTINCT:
        return sum(1 for each in free if each), f"{by}: each on another GPU"
    if pool.multiple is Multiple.SAME:
        most = max((size * count for size, count in _whole(pool).items()), default=0)
        if most > pool.largest:
            return most, f"{by}: all on one GPU, or several whole GPUs"
        return max(free), f"{by}: all on one GPU"
    if pool.multiple is Multiple.REFUSE:
        return 1, by
    return sum(free), by


def _whole(pool: Pool) -> Counter[int]:
    """How many GPUs can be given whole, by the number of their shares."""
    return Counter(
        group.factor
        for group in pool.groups
        if group.availability is Availability.AVAILABLE and group.unheld == group.factor
    )
