"""An immutable set of natural numbers, stored as ranges.

A GPU can have 10 000 shares; a plan keeps them as a few ranges instead of an object per share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from attrs import frozen


@frozen
class IntSet:
    """A set of integers ≥ 0. Build it with `IntSet.of` or `IntSet.span`."""

    ranges: tuple[tuple[int, int], ...] = ()
    """Half-open (start, stop), ascending, neither touching nor overlapping."""

    @classmethod
    def of(cls, numbers: Iterable[int]) -> IntSet:
        """The set of these numbers, in any order, repeated or not."""
        return cls(_merge((number, number + 1) for number in sorted(set(numbers))))

    @classmethod
    def span(cls, start: int, stop: int) -> IntSet:
        """The numbers from `start` up to, not including, `stop`."""
        return cls(((start, stop),) if start < stop else ())

    @classmethod
    def union(cls, sets: Iterable[IntSet]) -> IntSet:
        """The union of all these sets."""
        return cls(_merge(sorted(chain.from_iterable(one.ranges for one in sets))))

    def __len__(self) -> int:
        """How many numbers there are."""
        # A loop, as this is called most; a generator takes twice as long for a range or two.
        count = 0
        for start, stop in self.ranges:
            count += stop - start
        return count

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.ranges)

    def __iter__(self) -> Iterator[int]:
        """Every number, ascending."""
        return chain.from_iterable(range(start, stop) for start, stop in self.ranges)

    def __contains__(self, number: object) -> bool:
        """Whether a number is in the set."""
        return isinstance(number, int) and any(a <= number < b for a, b in self.ranges)

    def __or__(self, other: IntSet) -> IntSet:
        """The union."""
        if not self.ranges or not other.ranges:
            return self if self.ranges else other
        return IntSet.union((self, other))

    def __and__(self, other: IntSet) -> IntSet:
        """The intersection."""
        found = []
        mine, theirs = iter(self.ranges), iter(other.ranges)
        a, b = next(mine, None), next(theirs, None)
        while a and b:
            start, stop = max(a[0], b[0]), min(a[1], b[1])
            if start < stop:
                found.append((start, stop))
            if a[1] <= b[1]:
                a = next(mine, None)
            else:
                b = next(theirs, None)
        return IntSet(tuple(found))

    def __sub__(self, other: IntSet) -> IntSet:
        """The difference."""
        if not self.ranges or not other.ranges:
            return self
        return self & other._gaps(self.ranges[-1][1])

    def lowest(self, count: int) -> IntSet:
        """The `count` smallest numbers, or all if there are fewer."""
        found = []
        for start, stop in self.ranges:
            if count <= 0:
                break
            found.append((start, min(stop, start + count)))
            count -= stop - start
        return IntSet(tuple(found))

    def unused(self, count: int) -> IntSet:
        """The `count` smallest numbers that are not in this set."""
        end = self.ranges[-1][1] if self.ranges else 0
        return self._gaps(end + count).lowest(count)

    def _gaps(self, end: int) -> IntSet:
        """The numbers below `end` that are not in this set."""
        edges = [0, *chain.from_iterable(self.ranges), end]
        pairs = zip(edges[::2], edges[1::2], strict=True)
        below = ((start, min(stop, end)) for start, stop in pairs)
        return IntSet(tuple((start, stop) for start, stop in below if start < stop))


def _merge(ordered: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for start, stop in ordered:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return tuple(merged)
