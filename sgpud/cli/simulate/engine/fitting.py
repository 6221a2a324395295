"""Whether a request fits: into free shares as they are, or into an empty node at all."""

from __future__ import annotations

from collections.abc import Sequence

from sgpud.core.planning.plan import Plan
from sgpud.core.sharing.rules import Multiple


def never_fits(plan: Plan, resource: str, shares: int) -> str | None:
    """Why no node with this plan could ever place a request; None where an empty one can."""
    pool = plan.pool(resource)
    sizes = [len(group.active) for group in pool.groups] if pool else []
    if pool is None or not any(sizes):
        known = ", ".join(each.resource for each in plan.pools if each.groups)
        return f"no GPU is shared as {resource}, but as {known or 'nothing'}"
    if fits(pool.multiple, sizes, shares):
        return None
    return (
        f"{shares} shares never fit: a node has {len(sizes)} GPUs with up to {max(sizes)} shares "
        f'of {resource}, and several shares in one container are "{pool.multiple.value}"'
    )


def fits(multiple: Multiple, room: Sequence[int], shares: int) -> bool:
    """Whether GPUs with so many free shares each can take a request together."""
    if multiple is Multiple.DISTINCT:
        return sum(free > 0 for free in room) >= shares
    if multiple is Multiple.ANY:
        return sum(room) >= shares
    one = multiple is Multiple.SAME or shares == 1
    return one and max(room, default=0) >= shares
