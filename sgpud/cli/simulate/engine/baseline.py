"""A scheduler that sees every GPU and places pods there itself: what others are compared with.

No kubelet, no reports and no failures: a pod is placed as soon as a GPU has the room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from attrs import define, field

from sgpud.cli.simulate.engine.node import Given
from sgpud.cli.simulate.engine.rooms import fits
from sgpud.cli.simulate.engine.scheduler import PodAsk, Scheduler
from sgpud.cli.simulate.engine.values import Baseline
from sgpud.core.planning.plan import Plan, Pool
from sgpud.core.sharing.rules import Multiple

_FACTOR, _ADDED, _BELOW = 6_364_136_223_846_793_005, 1_442_695_040_888_963_407, 2**64
"""Of Knuth's MMIX generator: the same list gives the same outcome."""


@define
class SeenNode:
    """One node, by the shares of each GPU that nobody holds."""

    plan: Plan
    _sizes: Mapping[str, Sequence[int]]
    _room: dict[str, list[int]]
    chosen: deque[Given] = field(factory=deque)
    """What the scheduler chose for the next containers."""
    refresh: float | None = None
    news: bool = False

    @classmethod
    def of(cls, plan: Plan) -> SeenNode:
        """A node on which nothing runs."""
        sizes = {
            pool.resource: [group.given + group.unheld for group in pool.groups]
            for pool in plan.pools
        }
        return cls(plan, sizes, {resource: list(size) for resource, size in sizes.items()})

    def room(self, resource: str) -> list[int]:
        """How many shares of each GPU nobody holds."""
        return self._room.get(resource, [])

    def report(self, _now: float) -> dict[str, int]:
        """How many shares there are of each resource."""
        return {resource: sum(sizes) for resource, sizes in self._sizes.items()}

    def look(self) -> None:
        """Nothing: there is no sgpud."""

    def admit(self, resource: str, _shares: int, _now: float) -> Given:
        """Start a container where the scheduler chose."""
        given = self.chosen.popleft()
        self._take(resource, given, 1)
        return given

    def release(self, resource: str, given: Given, _now: float) -> None:
        """End a container."""
        self._take(resource, given, -1)

    def fit(
        self, ask: PodAsk, order: Callable[[int, int], float]
    ) -> tuple[float, list[Given]] | None:
        """(what is left of the GPUs, the GPUs) for each container of a pod; None where none fit.

        Of GPUs that fit, the first by `order` of their room and position.
        """
        found: list[tuple[str, Given]] = []
        left = 0.0
        for resource, shares in ask.containers:
            given = self._fit(resource, shares, order)
            if not given:
                break
            left += sum(self._room[resource][position] for position, _ in given) - shares
            self._take(resource, given, 1)
            found.append((resource, given))
        for resource, given in found:
            self._take(resource, given, -1)
        if len(found) < len(ask.containers):
            return None
        return left, [given for _, given in found]

    def _fit(self, resource: str, shares: int, order: Callable[[int, int], float]) -> Given:
        pool = self.plan.pool(resource)
        room = self.room(resource)
        if pool is None or not fits(pool, room, shares):
            return ()
        free = [position for position, left in enumerate(room) if left]
        free.sort(key=lambda position: (order(room[position], position), position))
        if pool.multiple is Multiple.DISTINCT:
            return tuple((position, 1) for position in free[:shares])
        if pool.multiple is Multiple.ANY:
            return _filled(free, room, shares)
        one = next((position for position in free if room[position] >= shares), None)
        return ((one, shares),) if one is not None else self._whole(pool, free, shares)

    def _whole(self, pool: Pool, free: Sequence[int], shares: int) -> Given:
        sizes, room = self._sizes[pool.resource], self._room[pool.resource]
        for size in sorted(set(sizes), reverse=True):
            whole = [each for each in free if room[each] == sizes[each] == size]
            if shares % size == 0 and len(whole) * size >= shares:
                return tuple((position, size) for position in whole[: shares // size])
        return ()

    def _take(self, resource: str, given: Given, sign: int) -> None:
        for position, count in given:
            self._room[resource][position] -= sign * count


def _filled(free: Sequence[int], room: Sequence[int], shares: int) -> Given:
    given = []
    for position in free:
        count = min(shares, room[position])
        shares -= count
        if count:
            given.append((position, count))
    return tuple(given)


@define
class SeeingScheduler(Scheduler):
    """Binds each pod to the node, and places it on the GPUs, that the baseline says."""

    _seen: Sequence[SeenNode] = ()
    _baseline: Baseline = Baseline.BEST_FIT
    _blocked: set[PodAsk] = field(factory=set)
    """What fits nowhere until a pod ends."""
    _chance: int = 1

    def ended(self, node: int, ask: PodAsk) -> None:
        """A pod has ended."""
        super().ended(node, ask)
        self._blocked.clear()

    def bind(self) -> tuple[int, int] | None:
        """Bind the pod that waits longest of those that fit somewhere: (pod, node), or None."""
        asks = [(queue[0], ask) for ask, queue in self.waiting.items() if ask not in self._blocked]
        for (_, pod), ask in sorted(asks, key=lambda each: each[0]):
            options = []
            for number in self.allowed(ask):
                found = self._seen[number].fit(ask, self._order)
                if found is not None:
                    options.append((self._order(found[0], number), number, found[1]))
                    if self._baseline is Baseline.FIRST_FIT:
                        break
            if options:
                _, node, given = min(options)
                self._seen[node].chosen.extend(given)
                self._bound(ask, node)
                return pod, node
            self._blocked.add(ask)
        return None

    def _order(self, left: float, number: int) -> float:
        """What GPUs, and nodes, are ordered by: what they have left, or their number."""
        if self._baseline is Baseline.BEST_FIT:
            return left
        if self._baseline is Baseline.FIRST_FIT:
            return number
        self._chance = (self._chance * _FACTOR + _ADDED) % _BELOW
        return self._chance / _BELOW
