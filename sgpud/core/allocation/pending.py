"""Grants that the published plan does not count yet. Allocate subtracts them from what is free."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field, frozen

from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import ADMISSION, Grant
from sgpud.core.planning.plan import GpuShares, Pool


@frozen
class MemoryLeft:
    """Bytes that the GPUs of a pool of memory shares have for one container."""

    free: Mapping[str, int]
    """What nobody has declared, by UUID, once those who held the asked shares have ended."""
    own: Mapping[str, int]
    """What the container takes over from an init container of its pod, by UUID."""

    def of(self, uuid: str) -> int:
        """What a container has that is bound to this GPU."""
        return self.free.get(uuid, 0) + self.own.get(uuid, 0)


@define
class PendingGrants:
    """What was given of one pool since its plan was made. Its owner's lock guards it."""

    _given: dict[str, IntSet] = field(factory=dict)
    """Places: numbers by GPU UUID."""
    _bound: dict[tuple[str, int], tuple[str, int, float]] = field(factory=dict)
    """Memory shares, by stem and number: the GPU, the bytes, and when."""
    _used: dict[str, int] = field(factory=dict)
    """Bytes that they take of each GPU, beside what the plan counts."""
    _ended: dict[str, IntSet] = field(factory=dict)
    """Memory shares, by stem, of containers that have ended, beside those that were given again."""

    def copy(self) -> PendingGrants:
        """The same grants, to be added to apart."""
        return PendingGrants(
            dict(self._given), dict(self._bound), dict(self._used), dict(self._ended)
        )

    def note(self, grant: Grant, pool: Pool) -> None:
        """Count a grant of this pool."""
        if grant.gpu:
            self._bind(grant, pool)
            return
        for uuid, numbers in grant.shares.items():
            self._given[uuid] = self._given.get(uuid, IntSet()) | numbers

    def has_room(self, group: GpuShares, asked: IntSet) -> bool:
        """Whether the GPU has the places for whoever is given `asked` of it.

        Whoever held one of these has ended: the kubelet never gives one to two that live.
        """
        given = self._given.get(group.uuid, IntSet())
        # Mostly it has them beside all that is held, and nobody has to have ended.
        if group.room - len(given) >= len(asked):
            return True
        left = (group.held | given) - asked
        return group.room + len(group.held) - len(left) >= len(asked)

    def free(self, pool: Pool) -> list[IntSet]:
        """The places of each GPU that the kubelet can choose, as far as is known here."""
        return [
            group.healthy - group.held - self._given.get(group.uuid, IntSet())
            for group in pool.groups
        ]

    def left(self, pool: Pool, asked: Mapping[str, IntSet], at: float) -> MemoryLeft:
        """What there is for whoever is given these memory shares, numbers by stem, at `at`.

        Whoever held one has ended, and all its memory is free. But shares that were given a moment
        ago may be an init container's, which is still to run: their memory is free on their GPU
        only, for the container that takes them over.
        """
        free = {group.uuid: group.left - self._used.get(group.uuid, 0) for group in pool.groups}
        own: dict[str, int] = {}
        for stem, numbers in asked.items():
            known = [n for n in numbers if (stem, n) in self._bound] if self._bound else ()
            for number in known:
                uuid, size, since = self._bound[stem, number]
                side = own if since > at - ADMISSION else free
                side[uuid] = side.get(uuid, 0) + size
            ended = self._ended.get(stem, IntSet())
            back = (numbers - IntSet.of(known) - ended) | self._ends_with(pool, stem, numbers, at)
            self._returned(pool, stem, back, at, free, own)
        return MemoryLeft(free, own)

    def _ends_with(self, pool: Pool, stem: str, numbers: IntSet, at: float) -> IntSet:
        """What else those have held who held these shares, and have ended."""
        others = IntSet.union(
            one.numbers
            for one in pool.containers
            if one.stem == stem and one.at <= at - ADMISSION and one.numbers & numbers
        )
        if not others:
            return others
        fresh = IntSet.union(one.numbers for one in pool.fresh if one.stem == stem)
        others = others - numbers - fresh - self._ended.get(stem, IntSet())
        return IntSet.of([n for n in others if (stem, n) not in self._bound])

    def _returned(
        self,
        pool: Pool,
        stem: str,
        numbers: IntSet,
        at: float,
        free: dict[str, int],
        own: dict[str, int],
    ) -> None:
        """Add what the plan counts for these shares."""
        for group in pool.groups:
            for lot in group.lots:
                if lot.stem != stem or not (mine := lot.numbers & numbers):
                    continue
                fresh = IntSet.union(
                    mine & one.numbers
                    for one in pool.fresh
                    if (one.gpu, one.stem) == (group.uuid, stem) and one.at > at - ADMISSION
                )
                own[group.uuid] = own.get(group.uuid, 0) + len(fresh) * lot.size
                ended = (len(mine) - len(fresh)) * lot.size
                free[group.uuid] = free.get(group.uuid, 0) + ended

    def _bind(self, grant: Grant, pool: Pool) -> None:
        left = self.left(pool, grant.shares, grant.at)
        size = grant.sizes.get(grant.gpu, 0)
        for stem, numbers in grant.shares.items():
            more = self._ends_with(pool, stem, numbers, grant.at)
            self._ended[stem] = self._ended.get(stem, IntSet()) | more
        for group in pool.groups:
            before = group.left - self._used.get(group.uuid, 0)
            self._used[group.uuid] = group.left - left.free.get(group.uuid, before)
        count = sum(map(len, grant.shares.values()))
        used = self._used.get(grant.gpu, 0)
        self._used[grant.gpu] = used + max(0, count * size - left.own.get(grant.gpu, 0))
        for stem, numbers in grant.shares.items():
            for number in numbers:
                self._bound[stem, number] = (grant.gpu, size, grant.at)
