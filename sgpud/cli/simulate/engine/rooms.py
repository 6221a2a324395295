"""What fits on the GPUs of a node by the shares that are free of each."""

from __future__ import annotations

from collections.abc import Sequence

from sgpud.core.planning.plan import Plan, Pool
from sgpud.core.sharing.rules import Multiple


def sizes(pool: Pool) -> list[int]:
    """How many shares each GPU has."""
    return [group.given + group.unheld for group in pool.groups]


def fits(pool: Pool, room: Sequence[int], shares: int) -> bool:
    """Whether GPUs with so many free shares each can take a container's request together."""
    if pool.multiple is Multiple.DISTINCT:
        return sum(free > 0 for free in room) >= shares
    if pool.multiple is Multiple.ANY:
        return sum(room) >= shares
    if pool.multiple is Multiple.REFUSE and shares > 1:
        return False
    return max(room, default=0) >= shares or _whole(pool, room, shares)


def _whole(pool: Pool, room: Sequence[int], shares: int) -> bool:
    """Whether the request is for whole GPUs, and so many of them are free."""
    if pool.memory or shares <= pool.largest:
        return False
    each = [free for free, group in zip(room, pool.groups, strict=True) if free == group.factor]
    return any(shares % size == 0 and each.count(size) * size >= shares for size in set(each) - {0})


def never_fits(plans: Sequence[Plan], containers: Sequence[tuple[str, int]]) -> str | None:
    """Why none of the nodes with these plans could ever place a pod; None where an empty one can.

    `containers`: (resource, shares) of each.
    """
    reasons = [_never_fits(plan, containers) for plan in plans]
    if None in reasons:
        return None
    # Of nodes that differ, the one that comes closest to it says the most.
    return min(filter(None, reasons), key=lambda reason: reason[0])[1]


def _never_fits(
    plan: Plan, containers: Sequence[tuple[str, int]]
) -> tuple[tuple[int, int], str] | None:
    """(how far from fitting, why) for one node."""
    total: dict[str, int] = {}
    for resource, shares in containers:
        total[resource] = total.get(resource, 0) + shares
        pool = plan.pool(resource)
        cut = sizes(pool) if pool else []
        if pool is None or not any(cut):
            known = ", ".join(each.resource for each in plan.pools if each.groups)
            return (1, 0), f"no GPU is shared as {resource}, but as {known or 'nothing'}"
        of = f"a node has {len(cut)} GPUs with up to {max(cut)} shares of {resource}"
        if not fits(pool, cut, shares):
            return (0, -max(cut)), (
                f"{shares} shares never fit: {of}, and several shares in one container are "
                f'"{pool.multiple.value}"'
            )
        if sum(cut) < total[resource]:
            return (0, -max(cut)), f"its containers never fit together: {of}"
    return None
