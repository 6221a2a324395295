"""Which share ids are listed: the bookkeeping of draining, as a step() in time.

Two of the plan's rules live here. *Two steps out*: a share that is to go is draining first
(listed Unhealthy) and leaves the list `DRAIN_FOR` later at the earliest, known to be free. *An id
has one meaning*: numbers of a GPU belong to one resource at a time, and new shares take numbers
that are not listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import floor

from attrs import evolve, field, frozen

from sgpud.core.gpu.gpu import Gpu
from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import HeldShares, Key, elsewhere
from sgpud.core.sharing.rules import Partition, Sharing
from sgpud.core.sharing.share_id import MESSAGE_LIMIT, listed_bytes, memory_stem

DRAIN_FOR = 30.0
"""Seconds from Unhealthy to gone: the kubelet may have chosen the id just before, and reads it
from the list again after our answer (kubelet, devicemanager/manager.go)."""
EMPTY_FOR = 10.0
"""Seconds that a pool without any share shows its empty list before its endpoint retires."""


@frozen
class Draining:
    """Shares on their way out, since when (seconds of the monotonic clock)."""

    numbers: IntSet
    since: float


@frozen
class ListedShares:
    """What is listed of one GPU in one pool."""

    active: IntSet = field(factory=IntSet)
    """Free or held, to stay."""
    draining: tuple[Draining, ...] = ()
    size: int = 0
    """Bytes that a share given now stands for; 0: a share is a place on the GPU."""

    @property
    def leaving(self) -> IntSet:
        """All numbers that are draining."""
        found = IntSet()
        for part in self.draining:
            found |= part.numbers
        return found

    @property
    def listed(self) -> IntSet:
        """All numbers that are in the list."""
        return self.active | self.leaving


@frozen
class Listing:
    """All that is listed on this node."""

    blocks: Mapping[Key, ListedShares] = field(factory=dict)
    empty_since: Mapping[str, float] = field(factory=dict)
    """Resources that are no longer configured and have nothing listed, since when."""
    past_limit: tuple[Key, ...] = ()
    """GPUs that get no more shares, since the list message would outgrow the kubelet's limit."""


@frozen
class MemoryRoom:
    """What the GPUs of a pool of memory shares have room for together."""

    shares: int
    size: int
    """Bytes of one share."""


@frozen
class ListingInputs:
    """What a step looks at."""

    partitions: Mapping[Key, Partition]
    """How each GPU that is there is shared as configured, in order."""
    resources: tuple[str, ...]
    """The configured resources."""
    held: Mapping[Key, IntSet]
    held_shares: Mapping[Key, tuple[HeldShares, ...]]
    """What is held, and on which terms."""
    memory: Mapping[Key, MemoryRoom]
    """What the pools of memory shares have room for, by resource and stem."""
    may_remove: bool
    """False while nobody knows for certain who holds what."""


def partitions(sharing: Sharing, gpus: Iterable[Gpu]) -> dict[Key, Partition]:
    """How each GPU is to be shared, in the GPUs' order."""
    found = {}
    for gpu in sorted(gpus, key=lambda gpu: gpu.order):
        terms = sharing.terms(gpu)
        if terms:
            found[terms.resource, gpu.uuid] = sharing.partition(gpu, terms)
    return found


def room_beside(
    key: Key,
    partition: Partition | None,
    held: IntSet,
    held_shares: Mapping[Key, tuple[HeldShares, ...]],
) -> int:
    """How many places a GPU has beside those that are held.

    Negative: so many of the held ones are more than it has. Without a partition it is not shared.
    """
    if partition is None or not partition.shares or partition.size:
        return -len(held)
    left = partition.shares * max(Fraction(0), 1 - elsewhere(key, partition, held_shares))
    return int(left) - len(held)


def memory_left(
    uuid: str, partition: Partition, held_shares: Mapping[Key, tuple[HeldShares, ...]]
) -> int:
    """Bytes of a GPU that no container has declared; negative where they declared too many."""
    taken = sum(
        (
            batch.fraction(partition)
            for (_, gpu), found in held_shares.items()
            if gpu == uuid
            for batch in found
        ),
        Fraction(),
    )
    return floor(partition.usable * (1 - taken)) if partition.shares else 0


def memory_rooms(
    partitions: Mapping[Key, Partition], held_shares: Mapping[Key, tuple[HeldShares, ...]]
) -> dict[Key, MemoryRoom]:
    """What the pools of memory shares have room for, by resource and stem."""
    found: dict[Key, MemoryRoom] = {}
    for (resource, uuid), partition in partitions.items():
        if partition.size:
            key = (resource, memory_stem(resource))
            before = found.get(key, MemoryRoom(0, partition.size))
            room = max(0, memory_left(uuid, partition, held_shares) // partition.size)
            found[key] = evolve(before, shares=before.shares + room)
    return found


def taken_over(listing: Listing, registered: Mapping[Key, IntSet]) -> Listing:
    """The listing with the ids that the kubelet knew before this process listed anything.

    They count as listed, so that the next step drains what the plan does not have.
    """
    blocks = dict(listing.blocks)
    for key, numbers in _disjoint(listing.blocks, registered).items():
        block = blocks.get(key, ListedShares())
        fresh = numbers - block.listed
        if fresh:
            blocks[key] = evolve(block, active=block.active | fresh)
    return evolve(listing, blocks=blocks)


def step(listing: Listing, facts: ListingInputs, now: float) -> Listing:
    """The listing as it should be now. `now` is in seconds of a monotonic clock."""
    before = {key: _expired(block, facts, now) for key, block in listing.blocks.items()}
    facts = evolve(facts, held=_disjoint(before, facts.held))
    places = (key for key, partition in facts.partitions.items() if not partition.size)
    keys = tuple(dict.fromkeys((*places, *facts.memory, *facts.held, *before)))
    # What leaves the list in this step is not given to another pool in the same one.
    taken: dict[str, IntSet] = {}
    for (_, uuid), numbers in (*_listed(listing.blocks).items(), *facts.held.items()):
        taken[uuid] = taken.get(uuid, IntSet()) | numbers
    sizes = _sizes(before, facts)
    blocks: dict[Key, ListedShares] = {}
    past_limit = []
    for key in keys:
        resource, uuid = key
        block = before.get(key, ListedShares())
        active = _active(key, block, taken.get(uuid, IntSet()), facts)
        fresh = active - block.listed - facts.held.get(key, IntSet())
        size = sizes.get(resource, 0) + listed_bytes(uuid, fresh)
        if fresh and size > MESSAGE_LIMIT:
            past_limit.append(key)
            active -= fresh
        else:
            sizes[resource] = size
            taken[uuid] = taken.get(uuid, IntSet()) | fresh
        found = _moved(block, active, now)
        if key in facts.memory:
            found = evolve(found, size=facts.memory[key].size)
        elif key in facts.partitions:
            found = evolve(found, size=0)
        if found.listed:
            blocks[key] = found
    return Listing(blocks, _empty(listing, blocks, facts, now), tuple(past_limit))


def next_due(listing: Listing) -> float | None:
    """When the next step changes something by time alone; None where nothing waits for time."""
    dues = [part.since + DRAIN_FOR for block in listing.blocks.values() for part in block.draining]
    dues += [since + EMPTY_FOR for since in listing.empty_since.values()]
    return min(dues, default=None)


def _listed(blocks: Mapping[Key, ListedShares]) -> dict[Key, IntSet]:
    return {key: block.listed for key, block in blocks.items()}


def _disjoint(
    blocks: Mapping[Key, ListedShares], numbers: Mapping[Key, IntSet]
) -> dict[Key, IntSet]:
    """These numbers, each under one resource only: the one that lists it, else the first.

    The kubelet never says otherwise; a checkpoint from another time might.
    """
    owned = _listed(blocks)
    found: dict[Key, IntSet] = {}
    for key, mine in numbers.items():
        others = [part for (r, u), part in owned.items() if u == key[1] and r != key[0]]
        for part in others:
            mine -= part  # noqa: PLW2901 - what is left of it
        if mine:
            found[key] = mine
            owned[key] = owned.get(key, IntSet()) | mine
    return found


def _expired(block: ListedShares, facts: ListingInputs, now: float) -> ListedShares:
    """The block without the shares that have drained for long enough.

    Held ones among them are not lost: they come back as active from `facts.held`.
    """
    if not facts.may_remove:
        return block
    return evolve(
        block, draining=tuple(part for part in block.draining if now < part.since + DRAIN_FOR)
    )


def _active(key: Key, block: ListedShares, taken: IntSet, facts: ListingInputs) -> IntSet:
    """The numbers to keep or to add: what is held, then what is listed already, then new ones."""
    held = facts.held.get(key, IntSet())
    if key in facts.memory:
        room = facts.memory[key].shares
    else:
        partition = facts.partitions.get(key)
        room = room_beside(key, partition, held, facts.held_shares)
    if room <= 0:
        return held
    chosen = held
    for source in (block.active - held, block.leaving - held):
        more = source.lowest(room)
        chosen, room = chosen | more, room - len(more)
    return chosen | taken.unused(room) if room > 0 else chosen


def _moved(block: ListedShares, active: IntSet, now: float) -> ListedShares:
    still = tuple(
        Draining(rest, part.since) for part in block.draining if (rest := part.numbers - active)
    )
    going = block.active - active
    return evolve(block, active=active, draining=(*still, Draining(going, now)) if going else still)


def _sizes(before: Mapping[Key, ListedShares], facts: ListingInputs) -> dict[str, int]:
    """Bytes of each pool's message for what is listed or held already."""
    sizes: dict[str, int] = {}
    for key in dict.fromkeys((*before, *facts.held)):
        resource, uuid = key
        numbers = before.get(key, ListedShares()).listed | facts.held.get(key, IntSet())
        sizes[resource] = sizes.get(resource, 0) + listed_bytes(uuid, numbers)
    return sizes


def _empty(
    listing: Listing, blocks: Mapping[Key, ListedShares], facts: ListingInputs, now: float
) -> dict[str, float]:
    """Dropped resources with nothing listed, until they have shown that for long enough."""
    listed = {resource for resource, _ in blocks}
    known = {*(resource for resource, _ in listing.blocks), *listing.empty_since}
    since = {
        resource: listing.empty_since.get(resource, now)
        for resource in sorted(known - listed - set(facts.resources))
    }
    return {resource: at for resource, at in since.items() if now < at + EMPTY_FOR}
