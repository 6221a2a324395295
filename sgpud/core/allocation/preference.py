"""GetPreferredAllocation: which of the free shares a container should get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heapreplace
from itertools import filterfalse, islice

from attrs import define, field, frozen

from sgpud.core.allocation.allocate import SHIFT, IdIndex
from sgpud.core.intset import IntSet
from sgpud.core.planning.plan import UNMEASURED, Availability, GpuShares, Plan, Pool
from sgpud.core.sharing.rules import Multiple, Placement
from sgpud.core.sharing.share_id import share_id

_NUMBER = (1 << SHIFT) - 1

Rank = tuple[float, int, str]
"""What GPUs are ordered by, the best first: load, measured free memory, UUID."""


@frozen
class Preference:
    """The shares that a container should get, and what they were chosen from."""

    ids: list[str]
    """As many as were asked for, where so many are available."""
    offered: tuple[int, ...]
    """Available shares of each GPU of the pool."""
    taken: tuple[tuple[int, ...], ...]
    """The numbers of the chosen shares of each GPU of the pool."""


@define
class _Room:
    """The free shares of one GPU while a container's are chosen."""

    position: int
    group: GpuShares
    free: Iterator[int]
    """The numbers of the free shares, the lowest first."""
    left: int
    """How many of those can be given now."""
    load: float
    """The fraction of the GPU that is held."""
    each: float
    """What one more share adds to it."""
    offered: int
    """How many free ones there are."""
    given: list[int] = field(factory=list)

    @property
    def numa(self) -> int | None:
        return self.group.gpu.numa if self.group.gpu else None

    def take(self, count: int) -> None:
        self.given += islice(self.free, count)
        self.left -= count
        self.load += count * self.each


def prefer(
    plan: Plan, pool: Pool, index: IdIndex, available: Sequence[str], must: Sequence[str], size: int
) -> Preference:
    """Exactly `size` ids out of `available`, those of `must` among them: never an error.

    `available` includes `must`, as the kubelet sends it. What Allocate would refuse is left out
    where that can be; what a request asks too much of (more than can be given, an id that nobody
    knows) is filled up with whatever is available: a refusal with a reason is Allocate's to give.
    """
    size = max(0, size)
    chosen = list(dict.fromkeys(must))[:size]
    if pool.memory:
        # Whichever they are, Allocate binds them to a GPU.
        chosen = list(dict.fromkeys([*must, *sorted(available)]))[:size]
        return Preference(chosen, (), ())
    required = {place for item in chosen if (place := index.places.get(item)) is not None}
    rooms = _rooms(pool, _free(pool, index, available, required))
    musts: dict[int, list[int]] = {}
    for place in required:
        musts.setdefault(place >> SHIFT, []).append(place & _NUMBER)
    offered = tuple(room.offered + len(musts.get(room.position, ())) for room in rooms)
    _fill(rooms, required, size - len(chosen), plan.placement, pool)
    chosen += _ids(rooms)
    if len(chosen) < size:
        already = set(chosen)
        chosen += sorted(item for item in set(available) if item not in already)
    taken = tuple((*musts.get(room.position, ()), *room.given) for room in rooms)
    return Preference(chosen[:size], offered, taken)


def prefer_free(plan: Plan, pool: Pool, free: Sequence[IntSet], size: int) -> Preference:
    """What `prefer` answers where just these shares of each of the pool's GPUs are available.

    Fewer ids than `size` where there are not so many that can be given.
    """
    rooms = _rooms(pool, ((iter(numbers), len(numbers)) for numbers in free))
    _fill(rooms, (), size, plan.placement, pool)
    offered = tuple(room.offered for room in rooms)
    return Preference(_ids(rooms), offered, tuple(tuple(room.given) for room in rooms))


def pick(plan: Plan, pool: Pool, free: Sequence[int], size: int) -> list[int]:
    """How many shares `prefer` takes of each of the pool's GPUs that have so many free ones.

    For callers that keep counts instead of ids: `sgpud simulate`.
    """
    rooms = _rooms(pool, ((iter(range(left)), left) for left in free))
    _fill(rooms, (), size, plan.placement, pool)
    return [len(room.given) for room in rooms]


def _ids(rooms: Iterable[_Room]) -> list[str]:
    return [share_id(room.group.uuid, number) for room in rooms for number in room.given]


def _free(
    pool: Pool, index: IdIndex, available: Sequence[str], required: Iterable[int]
) -> Iterator[tuple[Iterator[int], int]]:
    """The available shares of each GPU but the required ones: their numbers, and how many."""
    # Listed less available, in one step at C speed: thousands are available, and few are not.
    gone = [index.places[item] for item in index.places.keys() - available]
    taken: dict[int, set[int]] = {}
    for place in (*gone, *required):
        taken.setdefault(place >> SHIFT, set()).add(place & _NUMBER)
    for position, group in enumerate(pool.groups):
        out = taken.get(position, set())
        yield filterfalse(out.__contains__, group.listed), len(group.listed) - len(out)


def _rooms(pool: Pool, frees: Iterable[tuple[Iterator[int], int]]) -> list[_Room]:
    rooms = []
    for position, (group, (free, left)) in enumerate(zip(pool.groups, frees, strict=True)):
        active = len(group.active)
        load = (active - left) / group.parts if active > left else 0.0
        if group.elsewhere:
            load += float(group.elsewhere)
        able = 0
        if group.availability is Availability.AVAILABLE:
            # What is free and counts as held has ended: its room is there, too.
            ended = left - active + len(group.held)
            room = group.room + ended if ended > 0 else group.room
            able = min(left, room) if room > 0 else 0
        rooms.append(_Room(position, group, free, able, load, 1 / group.parts, left))
    return rooms


def _fill(
    rooms: list[_Room], required: Collection[int], need: int, placement: Placement, pool: Pool
) -> None:
    """Take `need` shares from the rooms, by `multiple` and `placement`."""
    used = {place >> SHIFT for place in required}
    packs = placement is Placement.PACKED

    def rank(room: _Room) -> Rank:
        measured = room.group.measured
        # What nobody has measured lately comes after what is known.
        steps = UNMEASURED if measured is None else measured if packs else -measured
        return (-room.load if packs else room.load, steps, room.group.uuid)

    if need > 0 and pool.multiple is Multiple.SAME:
        fitting = [room for room in rooms if room.left >= need]
        near = [room for room in fitting if room.position in used]
        best = min(near or fitting, key=rank, default=None)
        if best:
            best.take(need)
            return
        if need + len(required) > pool.largest:
            whole = _whole(rooms, required, need, pool, rank)
            for room in whole:
                room.take(room.left)
            if whole:
                return
    elif need > 0 and pool.numa:
        rooms = _one_node(rooms, used, need, pool.multiple, rank)
    if pool.multiple is Multiple.DISTINCT:
        others = [room for room in rooms if room.left and room.position not in used]
        for room in sorted(others, key=rank)[:need]:
            room.take(1)
            need -= 1
    # What no GPU has with `same`, Allocate refuses: then it does not matter which they are.
    _by_rank(rooms, need, rank, packs=packs or pool.multiple is Multiple.SAME)


def _by_rank(
    rooms: Iterable[_Room], need: int, rank: Callable[[_Room], Rank], *, packs: bool
) -> None:
    """Take each share from the room that is the best then, or what there is."""
    queue = [(rank(room), room.position, room) for room in rooms if room.left]
    heapify(queue)
    while need > 0 and queue:
        best = queue[0][-1]
        # One that is filled up stays the first of those to be packed.
        count = min(need, best.left) if packs else 1
        best.take(count)
        need -= count
        if best.left:
            heapreplace(queue, (rank(best), best.position, best))
        else:
            heappop(queue)


def _whole(
    rooms: Iterable[_Room],
    required: Collection[int],
    need: int,
    pool: Pool,
    rank: Callable[[_Room], Rank],
) -> list[_Room]:
    """The fewest GPUs, all with the same number of shares, that can be given whole; empty: none."""
    musts = Counter(place >> SHIFT for place in required)
    total = need + len(required)
    sizes: dict[int, list[_Room]] = {}
    for room in rooms:
        if room.left and room.left + musts[room.position] == room.group.factor:
            sizes.setdefault(room.group.factor, []).append(room)
    for size, those in sorted(sizes.items(), reverse=True):
        able = those
        if pool.numa:
            able = _one_node(able, set(musts), need, Multiple.ANY, rank)
        able.sort(key=lambda room: (room.position not in musts, rank(room)))
        count, rest = divmod(total, size)
        if not rest and count <= len(able) and musts.keys() <= {r.position for r in able[:count]}:
            return able[:count]
    return []


def _one_node(
    rooms: list[_Room],
    used: set[int],
    need: int,
    multiple: Multiple,
    rank: Callable[[_Room], Rank],
) -> list[_Room]:
    """The rooms of the best NUMA node that has what is needed; all of them where none has.

    Where some of the container's shares are given already, their node is the only one.
    """
    nodes: dict[int, list[_Room]] = {}
    for room in rooms:
        if room.numa is not None:
            nodes.setdefault(room.numa, []).append(room)
    mine = {room.numa for room in rooms if room.position in used}
    found = []
    for numa, those in nodes.items():
        able = [
            room
            for room in those
            if room.left and not (multiple is Multiple.DISTINCT and room.position in used)
        ]
        enough = len(able) if multiple is Multiple.DISTINCT else sum(room.left for room in able)
        if enough >= need and mine <= {numa}:
            ranks = sorted(map(rank, able))[:need]
            found.append(([one[:-1] for one in ranks], [one[-1] for one in ranks], those))
    return min(found, key=lambda each: each[:2])[2] if found else rooms
