"""The grants that a plan does not count yet: Allocate judges what there is now, beside them."""

from __future__ import annotations

from attrs import define, field

from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import Grant
from sgpud.core.planning.plan import GpuShares


@define
class PendingGrants:
    """What was given of one pool since its plan was made. Its owner's lock guards it."""

    _given: dict[str, IntSet] = field(factory=dict)
    """Numbers by GPU UUID."""

    def copy(self) -> PendingGrants:
        """The same grants, to be added to apart."""
        return PendingGrants(dict(self._given))

    def note(self, grant: Grant) -> None:
        """Count a grant."""
        for uuid, numbers in grant.shares.items():
            self._given[uuid] = self._given.get(uuid, IntSet()) | numbers

    def room(self, group: GpuShares, asked: IntSet) -> int:
        """How many shares the GPU has for whoever is given `asked` of it.

        Whoever held one of these has ended: the kubelet never gives one to two that live.
        """
        held = group.held | self._given.get(group.uuid, IntSet())
        return group.room + len(group.held) - len(held - asked)
