"""What changes from one plan to the next, in words."""

from __future__ import annotations

from attrs import frozen

from sgpud.core.planning.plan import GpuShares, Plan
from sgpud.core.text import several


@frozen
class ShareChange:
    """What changes for one GPU in one pool. All numbers are shares."""

    resource: str
    gpu: str
    """The GPU's UUID."""
    product: str
    before: int
    """Shares that stay listed, before."""
    after: int
    """Shares that stay listed, afterwards."""
    held: int
    """Held by containers: they stay, whatever changes."""
    draining: int
    """Draining afterwards."""

    def __str__(self) -> str:
        """One line."""
        parts = [f"{self.resource} {self.gpu}: {self.before} -> {several(self.after, 'share')}"]
        if self.held:
            parts.append(f"{self.held} held and kept")
        if self.draining:
            parts.append(f"{self.draining} draining")
        return ", ".join(parts)


def changes(old: Plan | None, new: Plan) -> tuple[ShareChange, ...]:
    """Every (pool, GPU) whose shares differ, added and removed ones included."""
    before, after = _groups(old), _groups(new)
    found = []
    for key in sorted({*before, *after}):
        was, will = before.get(key), after.get(key)
        if _counts(was) != _counts(will):
            shown = will or was
            product = shown.gpu.product if shown and shown.gpu else ""
            kept, _, held = _counts(will)
            change = ShareChange(*key, product, _counts(was)[0], kept, held, _counts(will)[1])
            found.append(change)
    return tuple(found)


def _groups(plan: Plan | None) -> dict[tuple[str, str], GpuShares]:
    pools = plan.pools if plan else ()
    return {(pool.resource, group.uuid): group for pool in pools for group in pool.groups}


def _counts(group: GpuShares | None) -> tuple[int, int, int]:
    """Shares that stay, that drain, and that are held."""
    if group is None:
        return (0, 0, 0)
    return (group.given + group.unheld, len(group.draining), group.given)
