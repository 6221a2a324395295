"""Who holds what: holders from the kubelet's checkpoint, and grants it does not name yet."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

from attrs import evolve, field, frozen

from sgpud.core.intset import IntSet
from sgpud.core.sharing.rules import Partition
from sgpud.core.sharing.share_id import share_id

ADMISSION = 10.0
"""Seconds: the containers of a pod are given their shares within them. A later container takes over
those of an init container, which is still to run; who was given shares longer ago has ended when
somebody else is given them."""
SETTLED_AFTER = 10.0
"""Seconds: a checkpoint written this long after a grant, and not naming it, ends it."""

Key = tuple[str, str]
"""(resource, GPU uuid), or (resource, stem of ids)."""
_T = TypeVar("_T")


@frozen
class Holder:
    """A container that holds shares of one resource."""

    pod: str
    """The pod's UID."""
    container: str
    resource: str
    shares: Mapping[str, IntSet]
    """Share numbers by the stem of their ids."""
    per_gpu: Mapping[str, int] = field(factory=dict)
    """How many shares each GPU had when it was granted; absent if unknown."""
    sizes: Mapping[str, int] = field(factory=dict)
    """Bytes per share by GPU UUID, for memory shares."""
    since: float = 0.0
    """When they were granted, in seconds since the epoch; 0: unknown."""
    namespace: str = ""
    """The pod's namespace and name, once podresources has reported them."""
    name: str = ""
    cap: int = 0
    """Its memory cap in MiB, where it was given by a CDI device."""
    claim: bool = False
    """Whether it is a request of a claim, with its name for `container`: any container of the pod
    may be the one that uses it."""
    gpu: str = ""
    """The GPU that memory shares are bound to; empty: each id names its GPU."""

    @property
    def at(self) -> float:
        """When it was given them."""
        return self.since

    @property
    def gpus(self) -> tuple[str, ...]:
        """The UUIDs of the GPUs that it has shares of."""
        return (self.gpu,) if self.gpu else tuple(self.shares)

    def count_on(self, uuid: str) -> int:
        """How many shares it has of a GPU."""
        if self.gpu:
            return sum(map(len, self.shares.values())) if self.gpu == uuid else 0
        return len(self.shares.get(uuid, ()))


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
    listed: frozenset[str] | None = None
    """UIDs of the pods that podresources listed last; None: it has not answered."""


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
    gpu: str = ""
    """The GPU that memory shares are bound to; empty: each id names its GPU."""


@frozen
class MemoryLot:
    """Memory shares of one pool that are bound to one GPU, and of one size."""

    stem: str
    numbers: IntSet
    size: int
    """Bytes of one share."""


@frozen
class GivenShares:
    """Memory shares that were given at some time, bound to one GPU."""

    at: float
    """Seconds since the epoch."""
    gpu: str
    stem: str
    numbers: IntSet


@frozen
class HeldShares:
    """Held shares of one GPU that were given on the same terms."""

    count: int
    per_gpu: int = 0
    """How many shares the GPU had; 0: unknown."""
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
    """The grants that the checkpoint does not confirm yet, at `now` (seconds since the epoch).

    Books that were written after a grant and name a holder since that second confirm it: its end is
    theirs to tell from then on, at once. What they do not name ends SETTLED_AFTER seconds later.

    Where the clock was set back, a grant of the future counts as given now, so that it ends one
    day, and a checkpoint of the future ends nothing.
    """
    written = checkpoint.written if checkpoint.written <= now else 0.0
    due = (grant if grant.at <= now else evolve(grant, at=now) for grant in grants)
    open_still = _gathered(grant for grant in due if written < grant.at + SETTLED_AFTER)
    named: dict[tuple[str, str, str, int], IntSet] = {}
    for holder in checkpoint.holders if open_still else ():
        for stem, numbers in holder.shares.items():
            key = (holder.resource, stem, holder.gpu, int(holder.since))
            named[key] = named.get(key, IntSet()) | numbers
    return tuple(
        rest
        for grant in open_still
        if (rest := _without(grant, named) if written > grant.at else grant).shares
    )


def _without(grant: Grant, named: Mapping[tuple[str, str, str, int], IntSet]) -> Grant:
    """A grant without the shares that a holder of the same second holds, on the same GPU."""
    left = {
        stem: numbers - named.get((grant.resource, stem, grant.gpu, int(grant.at)), IntSet())
        for stem, numbers in grant.shares.items()
    }
    return evolve(grant, shares={stem: numbers for stem, numbers in left.items() if numbers})


def _gathered(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """The same in fewer grants: one for each GPU, partition and second.

    It is as late as its last. A storm of allocations makes hundreds in a second, and every plan
    looks at all the grants there are.
    """
    alike: dict[tuple[str, str, str, int | None, int | None, int], list[tuple[float, IntSet]]] = {}
    for grant in grants:
        for stem, numbers in grant.shares.items():
            uuid = grant.gpu or stem
            terms = (grant.per_gpu.get(uuid), grant.sizes.get(uuid))
            key = (grant.resource, stem, grant.gpu, *terms, int(grant.at))
            alike.setdefault(key, []).append((grant.at, numbers))
    return tuple(
        Grant(
            resource,
            {stem: IntSet.union(numbers for _, numbers in found)},
            {} if parts is None else {gpu or stem: parts},
            max(at for at, _ in found),
            {} if size is None else {gpu or stem: size},
            gpu,
        )
        for (resource, stem, gpu, parts, size, _), found in alike.items()
    )


def held(checkpoint: CheckpointState, grants: Iterable[Grant]) -> dict[Key, IntSet]:
    """All share numbers that are held, by resource and stem."""
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
    found: dict[Key, dict[tuple[int, int], dict[str, list[IntSet]]]] = {}
    for source, stem, numbers in _bound(checkpoint, tuple(grants)):
        uuid = source.gpu or stem
        terms = (source.sizes.get(uuid, 0), source.per_gpu.get(uuid, 0))
        same = found.setdefault((source.resource, uuid), {})
        same.setdefault(terms, {}).setdefault(stem, []).append(numbers)
    return {key: tuple(_held_shares(by_terms)) for key, by_terms in found.items()}


def memory_lots(
    checkpoint: CheckpointState, grants: Iterable[Grant]
) -> dict[Key, tuple[MemoryLot, ...]]:
    """The memory shares that are bound to each GPU, by resource and GPU; each counts once there.

    One that is bound to two GPUs, since an init container of its pod is still to run on the other,
    counts on both.
    """
    found: dict[Key, dict[int, dict[str, list[IntSet]]]] = {}
    for source, stem, numbers in _bound(checkpoint, tuple(grants)):
        uuid = source.gpu or stem
        size = source.sizes.get(uuid, 0)
        if source.gpu or size:
            by_size = found.setdefault((source.resource, uuid), {})
            by_size.setdefault(size, {}).setdefault(stem, []).append(numbers)
    return {
        key: tuple(MemoryLot(stem, numbers, size) for size, stem, numbers in _once(by_size))
        for key, by_size in found.items()
    }


def fresh_shares(
    checkpoint: CheckpointState, grants: Iterable[Grant], now: float
) -> dict[str, tuple[GivenShares, ...]]:
    """The memory shares that were given lately, by resource. `now`: seconds since the epoch.

    So lately that their container may be an init container.
    """
    found: dict[str, list[GivenShares]] = {}
    for source, stem, numbers in _bound(checkpoint, tuple(grants)):
        if source.gpu and source.at > now - ADMISSION:
            one = GivenShares(source.at, source.gpu, stem, numbers)
            found.setdefault(source.resource, []).append(one)
    return {resource: tuple(some) for resource, some in found.items()}


def container_shares(
    checkpoint: CheckpointState, grants: Iterable[Grant]
) -> dict[str, tuple[GivenShares, ...]]:
    """The memory shares of each container that the checkpoint names, by resource.

    They end together: what is given again of them is the news that the container has ended.
    """
    found: dict[str, list[GivenShares]] = {}
    for source, stem, numbers in _bound(checkpoint, tuple(grants)):
        if source.gpu and isinstance(source, Holder):
            one = GivenShares(source.at, source.gpu, stem, numbers)
            found.setdefault(source.resource, []).append(one)
    return {resource: tuple(some) for resource, some in found.items()}


def _held_shares(
    by_terms: Mapping[tuple[int, int], Mapping[str, Iterable[IntSet]]],
) -> Iterator[HeldShares]:
    counts: dict[tuple[int, int], int] = {}
    for terms, _, fresh in _once(by_terms):
        counts[terms] = counts.get(terms, 0) + len(fresh)
    for (size, per_gpu), count in counts.items():
        yield HeldShares(count, per_gpu, size)


def _once(
    by_terms: Mapping[_T, Mapping[str, Iterable[IntSet]]],
) -> Iterator[tuple[_T, str, IntSet]]:
    """The numbers by terms and stem, each once: under the largest terms that it has."""
    counted: dict[str, IntSet] = {}
    for terms in sorted(by_terms, reverse=True):  # type: ignore[type-var]
        for stem, sets in by_terms[terms].items():
            numbers = IntSet.union(sets)
            before = counted.get(stem, IntSet())
            fresh = numbers - before if before else numbers
            counted[stem] = before | numbers
            if fresh:
                yield terms, stem, fresh


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
    """The checkpoint with the known names of pods."""
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
    """Whether a grant old enough to be settled waits for the kubelet to write its checkpoint."""
    named = held(checkpoint, ())
    return any(
        now >= grant.at + SETTLED_AFTER
        and any(
            numbers - named.get((grant.resource, uuid), IntSet())
            for uuid, numbers in grant.shares.items()
        )
        for grant in grants
    )


def _bound(
    checkpoint: CheckpointState, grants: Sequence[Grant]
) -> Iterator[tuple[Holder | Grant, str, IntSet]]:
    """What everybody holds, without the memory shares that have changed hands since.

    A container of which a share is given again has ended, with all that it held, unless it may be
    an init container of the same pod. Places are of their GPU, whoever holds them.
    """
    later = _Regiven(grants)
    for holder in checkpoint.holders:
        gone = later.after(max(checkpoint.written, holder.since + ADMISSION)) if holder.gpu else {}
        if not any(
            numbers & gone.get((holder.resource, stem), IntSet())
            for stem, numbers in (holder.shares.items() if gone else ())
        ):
            yield from _left_of(holder, {})
    oldest = min((grant.at for grant in grants if grant.gpu), default=float("inf"))
    newer = [holder for holder in checkpoint.holders if holder.gpu and holder.since > oldest]
    for grant in grants:
        gone = dict(later.after(grant.at + ADMISSION)) if grant.gpu else {}
        for holder in newer if grant.gpu else ():
            for stem, numbers in holder.shares.items():
                if holder.since > grant.at:
                    key = (holder.resource, stem)
                    gone[key] = gone.get(key, IntSet()) | numbers
        yield from _left_of(grant, gone)


def _left_of(
    source: Holder | Grant, gone: Mapping[Key, IntSet]
) -> Iterator[tuple[Holder | Grant, str, IntSet]]:
    for stem, numbers in source.shares.items():
        key = (source.resource, stem)
        left = numbers - gone[key] if key in gone else numbers
        if left:
            yield source, stem, left


class _Regiven:
    """The memory shares that were granted after some time."""

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = sorted((grant for grant in grants if grant.gpu), key=lambda one: one.at)
        self._known: dict[int, Mapping[Key, IntSet]] = {0: {}}
        self._ats = [grant.at for grant in self._grants]

    def after(self, at: float) -> Mapping[Key, IntSet]:
        """Their numbers, by resource and stem."""
        start = bisect_right(self._ats, at)
        count = len(self._grants) - start
        if count not in self._known:
            found: dict[Key, list[IntSet]] = {}
            for grant in self._grants[start:]:
                for stem, numbers in grant.shares.items():
                    found.setdefault((grant.resource, stem), []).append(numbers)
            self._known[count] = {key: IntSet.union(sets) for key, sets in found.items()}
        return self._known[count]


def _sources(checkpoint: CheckpointState, grants: Iterable[Grant]) -> Iterator[Holder | Grant]:
    yield from checkpoint.holders
    yield from grants
