"""Who holds what: holders from the kubelet's books, and grants that are not yet in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

from attrs import evolve, field, frozen

from sgpud.core.intset import IntSet
from sgpud.core.sharing.rules import Partition
from sgpud.core.sharing.share_id import share_id

SETTLED_AFTER = 10.0
"""Seconds: a checkpoint written this long after a grant, and not naming it, ends it."""

Key = tuple[str, str]
"""(resource, GPU uuid)."""


@frozen
class Holder:
    """A container that holds shares of one resource."""

    pod: str
    """The pod's UID."""
    container: str
    resource: str
    shares: Mapping[str, IntSet]
    """Share numbers by GPU UUID."""
    per_gpu: Mapping[str, int] = field(factory=dict)
    """Into how many shares each GPU was cut when it was given; absent where nobody knows."""
    sizes: Mapping[str, int] = field(factory=dict)
    """Bytes per share by GPU UUID, for memory shares."""
    since: float = 0.0
    """When it was given them, in seconds since the epoch; 0 where nobody knows."""
    namespace: str = ""
    """The pod's namespace and name, once podresources has told them."""
    name: str = ""
    cap: int = 0
    """Its memory cap in MiB, where it was given by a CDI device."""


@frozen
class CheckpointState:
    """What the kubelet's checkpoint says, as it was last read."""

    holders: tuple[Holder, ...] = ()
    written: float = 0.0
    """When the kubelet wrote it, in seconds since the epoch; 0 where there is none."""
    registered: Mapping[Key, IntSet] = field(factory=dict)
    """Ids of ours that the kubelet knew as Healthy when it wrote; taken over once, then empty."""
    problem: str = ""
    """Why the file could not be read (the rest is then what was known last), or empty."""
    doubt: str = ""
    """Why the holders may be stale although the file was read, or empty."""


@frozen
class Grant:
    """Shares that Allocate has answered: held from that moment."""

    resource: str
    shares: Mapping[str, IntSet]
    per_gpu: Mapping[str, int]
    at: float
    """Seconds since the epoch, to compare with `CheckpointState.written`."""
    sizes: Mapping[str, int] = field(factory=dict)
    """Bytes per share by GPU UUID, for memory shares."""


@frozen
class HeldShares:
    """Held shares of one GPU that were given on the same terms."""

    count: int
    per_gpu: int = 0
    """Into how many shares the GPU was cut; 0 where nobody knows."""
    size: int = 0
    """Bytes of one share; 0: a share is a place on the GPU."""

    def fraction(self, partition: Partition) -> Fraction:
        """How much of its GPU, shared as `partition` says now, they are."""
        if self.size:
            return Fraction(self.count * self.size, max(1, partition.usable))
        return Fraction(self.count, self.per_gpu or partition.shares or 1)


@frozen
class NamedPod:
    """A pod with a running container, as podresources lists it."""

    namespace: str
    pod: str
    """Its name."""
    ids: frozenset[str]
    """The ids of ours that it holds, but for those of ordinary init containers."""


def unsettled(
    grants: Iterable[Grant], checkpoint: CheckpointState, now: float
) -> tuple[Grant, ...]:
    """The grants that the books do not confirm, and are too old to end, at `now` (since the epoch).

    Books that were written after a grant and name a holder since that second confirm it: its end is
    theirs to tell from then on, at once. What they do not name ends SETTLED_AFTER seconds later.

    Where the clock was set back, a grant of the future counts as given now, so that it ends one
    day, and books of the future end nothing.
    """
    written = checkpoint.written if checkpoint.written <= now else 0.0
    due = (evolve(grant, at=min(grant.at, now)) for grant in grants)
    open_still = _gathered(grant for grant in due if written < grant.at + SETTLED_AFTER)
    named: dict[tuple[str, str, int], IntSet] = {}
    for holder in checkpoint.holders if open_still else ():
        for uuid, numbers in holder.shares.items():
            key = (holder.resource, uuid, int(holder.since))
            named[key] = named.get(key, IntSet()) | numbers
    return tuple(
        rest
        for grant in open_still
        if (rest := _without(grant, named) if written > grant.at else grant).shares
    )


def _without(grant: Grant, named: Mapping[tuple[str, str, int], IntSet]) -> Grant:
    """A grant without the shares that a holder of the same second holds."""
    left = {
        uuid: numbers - named.get((grant.resource, uuid, int(grant.at)), IntSet())
        for uuid, numbers in grant.shares.items()
    }
    return evolve(grant, shares={uuid: numbers for uuid, numbers in left.items() if numbers})


def _gathered(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """The same in fewer grants: one for each GPU, way of cutting it, and second.

    It is as late as its last. A storm of allocations makes hundreds in a second, and every plan
    looks at all the grants there are.
    """
    alike: dict[tuple[str, str, int | None, int | None, int], list[tuple[float, IntSet]]] = {}
    for grant in grants:
        for uuid, numbers in grant.shares.items():
            terms = (grant.per_gpu.get(uuid), grant.sizes.get(uuid))
            key = (grant.resource, uuid, *terms, int(grant.at))
            alike.setdefault(key, []).append((grant.at, numbers))
    return tuple(
        Grant(
            resource,
            {uuid: IntSet.union(numbers for _, numbers in found)},
            {} if parts is None else {uuid: parts},
            max(at for at, _ in found),
            {} if size is None else {uuid: size},
        )
        for (resource, uuid, parts, size, _), found in alike.items()
    )


def held(checkpoint: CheckpointState, grants: Iterable[Grant]) -> dict[Key, IntSet]:
    """All share numbers that are held, by resource and GPU."""
    parts: dict[Key, list[IntSet]] = {}
    for source in _sources(checkpoint, grants):
        for uuid, numbers in source.shares.items():
            parts.setdefault((source.resource, uuid), []).append(numbers)
    return {key: IntSet.union(found) for key, found in parts.items()}


def held_shares(
    checkpoint: CheckpointState, grants: Iterable[Grant]
) -> dict[Key, tuple[HeldShares, ...]]:
    """What is held of each GPU and on which terms, by resource and GPU; a share counts once.

    Where the terms of a share differ, those count that have the larger size or the larger number.
    """
    found: dict[Key, dict[tuple[int, int], list[IntSet]]] = {}
    for source in _sources(checkpoint, grants):
        for uuid, numbers in source.shares.items():
            terms = (source.sizes.get(uuid, 0), source.per_gpu.get(uuid, 0))
            same = found.setdefault((source.resource, uuid), {})
            same.setdefault(terms, []).append(numbers)
    return {key: tuple(_held_shares(by_terms)) for key, by_terms in found.items()}


def _held_shares(by_terms: Mapping[tuple[int, int], Iterable[IntSet]]) -> Iterator[HeldShares]:
    counted = IntSet()
    for size, per_gpu in sorted(by_terms, reverse=True):
        numbers = IntSet.union(by_terms[size, per_gpu])
        fresh = len(numbers - counted)
        counted |= numbers
        if fresh:
            yield HeldShares(fresh, per_gpu, size)


def elsewhere(
    key: Key, partition: Partition, held_lots: Mapping[Key, Iterable[HeldShares]]
) -> Fraction:
    """The fraction of a GPU that is held on other terms than its pool's: other pools, other sizes.

    A place of its own pool is one place, however many there were when it was given.
    """
    return sum(
        (
            batch.fraction(partition)
            for (resource, uuid), found in held_lots.items()
            if uuid == key[1]
            for batch in found
            if resource != key[0] or batch.size != partition.size
        ),
        Fraction(),
    )


def names(checkpoint: CheckpointState, named: Iterable[NamedPod]) -> dict[str, tuple[str, str]]:
    """Namespace and name by pod UID: the ids that both sides name join them."""
    by_id = {one: entry for entry in named for one in entry.ids}
    found: dict[str, tuple[str, str]] = {}
    for holder in checkpoint.holders if by_id else ():
        entry = next((by_id[one] for one in ids(holder.shares) if one in by_id), None)
        if entry is not None:
            found[holder.pod] = (entry.namespace, entry.pod)
    return found


def with_names(
    checkpoint: CheckpointState, known: Mapping[str, tuple[str, str]]
) -> CheckpointState:
    """The books with the names of the pods that are known."""
    return evolve(
        checkpoint,
        holders=tuple(
            evolve(holder, namespace=known[holder.pod][0], name=known[holder.pod][1])
            if holder.pod in known
            else holder
            for holder in checkpoint.holders
        ),
    )


def ids(shares: Mapping[str, IntSet]) -> Iterator[str]:
    """The ids of these shares."""
    for uuid, numbers in shares.items():
        for number in numbers:
            yield share_id(uuid, number)


def unconfirmed(grants: Iterable[Grant], checkpoint: CheckpointState, now: float) -> bool:
    """Whether a grant old enough to be settled waits for the kubelet to write its books."""
    named = held(checkpoint, ())
    return any(
        now >= grant.at + SETTLED_AFTER
        and any(
            numbers - named.get((grant.resource, uuid), IntSet())
            for uuid, numbers in grant.shares.items()
        )
        for grant in grants
    )


def _sources(checkpoint: CheckpointState, grants: Iterable[Grant]) -> Iterator[Holder | Grant]:
    yield from checkpoint.holders
    yield from grants
