"""What Allocate answers: the ids that the kubelet chose, judged against the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import field, frozen

from sgpud.core.allocation.injection import GrantedGpu, Injection, answer
from sgpud.core.allocation.pending import MemoryLeft, PendingGrants
from sgpud.core.errors import SgpudError
from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import memory_cap
from sgpud.core.planning.holdings import Grant
from sgpud.core.planning.plan import UNMEASURED, Availability, GpuShares, Plan, Pool
from sgpud.core.sharing.rules import Multiple
from sgpud.core.sharing.share_id import SEPARATOR
from sgpud.core.text import several
from sgpud.core.units import format_size

SHIFT = 30
"""A place is `group position << SHIFT | number`: one integer sorts and groups at C speed."""


@frozen(eq=False)
class IdIndex:
    """Where each listed id of a pool belongs."""

    places: Mapping[str, int]
    shape: tuple[tuple[str, IntSet], ...]
    """The stems and numbers it was made of, to know when it can be kept."""


def index(pool: Pool, previous: IdIndex | None = None) -> IdIndex:
    """The index of a pool; `previous` itself when the pool lists the same ids."""
    shape = tuple((group.uuid, group.listed) for group in pool.lists)
    if previous is not None and previous.shape == shape:
        return previous
    places: dict[str, int] = {}
    for position, (uuid, numbers) in enumerate(shape):
        base = position << SHIFT
        start = uuid + SEPARATOR
        places.update((start + str(number), base + number) for number in numbers)
    return IdIndex(places, shape)


SHOWN = 8
"""Ids that a message names before it only counts: a pod's event shows about 1 024 characters."""
_NUMBER = (1 << SHIFT) - 1


class RefusalRule(Enum):
    """The rule by which a request is refused."""

    NOTHING = "nothing"
    """No id was asked for."""
    TWICE = "twice"
    """An id stands twice in the request."""
    UNKNOWN = "unknown"
    """An id is not listed: it never was, or it left the list."""
    UNHEALTHY = "unhealthy"
    """The GPU is lost or unhealthy."""
    WITHHELD = "withheld"
    """The GPU is cordoned, full, suspect or not confirmed: no more of its shares are given."""
    ROOM = "room"
    """The GPU has no room for them: as many of its shares as it has are held."""
    METHOD = "method"
    """The node lacks what the method needs for this GPU."""
    MULTIPLE = "multiple"
    """The ids are against `[sharing] multiple`."""


_NO_METHOD = "how to hand GPUs over is not known yet"
_INVALID = (RefusalRule.NOTHING, RefusalRule.TWICE, RefusalRule.UNKNOWN)


class RefusedError(SgpudError):
    """An allocation that is not given: the rule, the ids, and what the pod's event should say."""

    def __init__(self, rule: RefusalRule, ids: Sequence[str], text: str) -> None:
        """`ids`: those that are at fault; `text`: the sentence, without them."""
        super().__init__(rule, tuple(ids), text)
        self.rule, self.ids, self.text = rule, tuple(ids), text

    @property
    def invalid(self) -> bool:
        """Whether the request itself is wrong (else it is the node's state that stands against)."""
        return self.rule in _INVALID

    def __str__(self) -> str:
        """The message: rule, sentence, ids."""
        return f"{self.rule.value}: {self.text}{_some(self.ids)}"


@frozen
class Request:
    """What a container is to be given: the ids that the kubelet chose, by their stem."""

    ids: Sequence[str]
    numbers: Mapping[int, IntSet]
    """By position in the pool's lists."""


@frozen
class ChosenGpu:
    """What a container gets, before it is put in words."""

    taken: tuple[tuple[GpuShares, int], ...]
    """How many shares of which GPU."""
    shares: Mapping[str, IntSet]
    """Their numbers by the stem of their ids."""
    size: int = 0
    """Bytes of one, for memory shares, which are all of one GPU."""

    def grant(self, resource: str, at: float) -> Grant:
        """The note of it, given at `at` (since the epoch)."""
        return Grant(
            resource,
            self.shares,
            {group.uuid: group.parts for group, _ in self.taken},
            at,
            {group.uuid: self.size for group, _ in self.taken} if self.size else {},
            self.taken[0][0].uuid if self.size else "",
        )


@frozen
class Allocation:
    """One container's allocation."""

    answer: Injection
    shares: Mapping[str, IntSet]
    """Share numbers by the stem of their ids."""
    per_gpu: Mapping[str, int]
    """Into how many shares each of those GPUs is cut."""
    sizes: Mapping[str, int] = field(factory=dict)
    """Bytes of one share of each of those GPUs, for memory shares."""
    gpu: str = ""
    """The GPU that memory shares are bound to."""


def allocate(
    plan: Plan, pool: Pool, index: IdIndex, ids: Sequence[str], at: float = 0.0
) -> Allocation:
    """What a container that was chosen these ids gets; RefusedError otherwise.

    `at` is now, in seconds since the epoch; the container is told, unless it is 0. The order of the
    ids does not matter. These are the three steps in one; only the second has to see every grant.
    """
    chosen = choose(plan, pool, requested(index, ids), PendingGrants(), at)
    return allocation(plan, pool, chosen, at)


def requested(index: IdIndex, ids: Sequence[str]) -> Request:
    """The ids, understood; RefusedError where they are not ids of this pool, each once."""
    numbers: dict[int, list[int]] = {}
    for place in sorted(_places(index, ids)):
        numbers.setdefault(place >> SHIFT, []).append(place & _NUMBER)
    return Request(
        ids,
        {
            position: IntSet.span(found[0], found[0] + 1) if len(found) == 1 else IntSet.of(found)
            for position, found in numbers.items()
        },
    )


def choose(
    plan: Plan, pool: Pool, request: Request, pending: PendingGrants, at: float = 0.0
) -> ChosenGpu:
    """What is given; RefusedError otherwise.

    It is judged by the room that there is now, beside the grants that the plan does not count yet:
    a share that is asked for is free, whoever the plan says holds it. What was withheld or began to
    drain a moment ago is still given, unless its GPU is sick: the kubelet may have chosen it from
    the list before, and a refusal fails the pod. Memory shares are bound to a GPU here. `at` is
    now, in seconds since the epoch.
    """
    if plan.chosen is None:
        raise RefusedError(RefusalRule.METHOD, request.ids, _NO_METHOD)
    found = [(pool.lists[position], numbers) for position, numbers in request.numbers.items()]
    shares = {group.uuid: numbers for group, numbers in found}
    if pool.memory:
        best = _best_fit(plan, pool, request, pending.left(pool, shares, at))
        return ChosenGpu(((best, len(request.ids)),), shares, pool.size)
    for group, numbers in found:
        _check(group, numbers, plan, request.ids, pending)
    _check_multiple(found, request.ids, pool)
    return ChosenGpu(tuple((group, len(numbers)) for group, numbers in found), shares)


def _best_fit(plan: Plan, pool: Pool, request: Request, left: MemoryLeft) -> GpuShares:
    """The GPU that memory shares are bound to: the one with the least room that holds them all.

    First those of which the container takes over shares of an init container of its pod; of GPUs
    with the same room the one with more measured free memory, then the first by UUID.
    """
    unavailable = plan.chosen.unavailable if plan.chosen else {}
    able = [
        group
        for group in pool.groups
        if group.availability is Availability.AVAILABLE
        and group.gpu is not None
        and group.factor
        and group.uuid not in unavailable
    ]
    need = len(request.ids) * pool.size
    fitting = [group for group in able if left.of(group.uuid) >= need]
    near = [group for group in fitting if left.own.get(group.uuid)]

    def rank(group: GpuShares) -> tuple[int, int, str]:
        measured = UNMEASURED if group.measured is None else -group.measured
        return (left.of(group.uuid) // pool.size, measured, group.uuid)

    best = min(near or fitting, key=rank, default=None)
    if best is None:
        rooms = {group.uuid: max(0, left.of(group.uuid) // pool.size) for group in able}
        raise RefusedError(
            RefusalRule.ROOM,
            request.ids,
            f"no GPU has room for {several(len(request.ids), 'memory share')}"
            f" ({format_size(need)}). Free now: {_rooms(rooms, pool.size)}; shares: ",
        )
    return best


def choose_all(
    plan: Plan, pool: Pool, requests: Sequence[Request], pending: PendingGrants, at: float
) -> list[ChosenGpu]:
    """What several containers are given, each beside those before it; all of it, or RefusedError.

    Nothing is noted in `pending`.
    """
    beside = pending.copy() if len(requests) > 1 else pending
    found = []
    for request in requests:
        found.append(choose(plan, pool, request, beside, at))
        if len(requests) > 1:
            beside.note(found[-1].grant(pool.resource, at), pool)
    return found


def allocation(plan: Plan, pool: Pool, choice: ChosenGpu, at: float) -> Allocation:
    """The answer for a container that gets this."""
    if plan.chosen is None:
        raise RefusedError(RefusalRule.METHOD, (), _NO_METHOD)
    grant = choice.grant(pool.resource, at)
    taken = [
        GrantedGpu(group.gpu, count, group.parts, choice.size)
        for group, count in choice.taken
        if group.gpu is not None
    ]
    bytes_of = [(item.gpu, item.shares * item.size) for item in taken]
    cap = memory_cap(bytes_of, plan.cap_terms) if plan.cap_terms else 0
    given = answer(plan.chosen, plan.host, taken, prefix=pool.prefix, at=at, cap=cap)
    return Allocation(given, grant.shares, grant.per_gpu, grant.sizes, grant.gpu)


def _places(index: IdIndex, ids: Sequence[str]) -> list[int]:
    if not ids:
        raise RefusedError(RefusalRule.NOTHING, (), "no share was requested")
    found = [(item, index.places.get(item)) for item in ids]
    unknown = [item for item, place in found if place is None]
    if unknown:
        raise RefusedError(
            RefusalRule.UNKNOWN, unknown, "not advertised here, now or in the last 30 s: "
        )
    if len(set(ids)) < len(ids):
        twice = [item for item, count in Counter(ids).items() if count > 1]
        raise RefusedError(RefusalRule.TWICE, twice, "named more than once: ")
    return [place for _, place in found if place is not None]


def _check(
    group: GpuShares, numbers: IntSet, plan: Plan, ids: Sequence[str], pending: PendingGrants
) -> None:
    missing = plan.chosen.unavailable.get(group.uuid) if plan.chosen else None
    if group.shown is not None:
        rule, reason = RefusalRule.ROOM, "the pool no longer has memory shares"
    elif group.availability is Availability.UNHEALTHY or group.gpu is None:
        rule, reason = RefusalRule.UNHEALTHY, group.reason
    elif missing:
        rule, reason = RefusalRule.METHOD, missing
    elif not numbers - group.late:
        return
    elif group.availability is Availability.WITHHELD:
        rule, reason = RefusalRule.WITHHELD, group.reason
    elif not pending.has_room(group, numbers):
        rule = RefusalRule.ROOM
        reason = f"as many of its shares are held as it has now ({group.factor})"
    else:
        return
    mine = [item for item in ids if item.startswith(group.uuid + SEPARATOR)]
    raise RefusedError(rule, mine, f"{group.uuid}: {reason}: ")


def _check_multiple(
    found: Sequence[tuple[GpuShares, IntSet]], ids: Sequence[str], pool: Pool
) -> None:
    count, multiple, groups = len(ids), pool.multiple, [group for group, _ in found]
    if multiple is Multiple.REFUSE and count > 1:
        text = f'{count} shares for one container, but [sharing] multiple = "refuse" allows 1: '
    elif multiple is Multiple.DISTINCT and len(groups) < count:
        of = ", ".join(group.uuid for group in groups)
        text = (
            f"{count} shares are on {len(groups)} of the {len(pool.groups)} GPUs ({of}), but "
            f'[sharing] multiple = "distinct" means {count} different GPUs: '
        )
    elif multiple is Multiple.SAME and len(groups) > 1 and not _whole(found, count, pool):
        of = ", ".join(group.uuid for group in groups)
        means = "one GPU" if count <= pool.largest else "whole GPUs of the same number of shares"
        text = (
            f'{count} shares are on {len(groups)} GPUs ({of}), but [sharing] multiple = "same" '
            f"means {means}: "
        )
    else:
        return
    raise RefusedError(RefusalRule.MULTIPLE, ids, text)


def _whole(found: Sequence[tuple[GpuShares, IntSet]], count: int, pool: Pool) -> bool:
    """Whether these are whole GPUs of equally many shares, for a request no single one can hold."""
    size = found[0][0].factor
    alike = all(group.factor == size == len(numbers) for group, numbers in found)
    return alike and count > pool.largest


def _rooms(rooms: Mapping[str, int], size: int) -> str:
    """The room of each GPU, the largest first."""
    ordered = sorted(rooms.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(
        f"{uuid} {room} ({format_size(room * size)})" for uuid, room in ordered[:SHOWN]
    )
    more = f" and {len(ordered) - SHOWN} smaller" if len(ordered) > SHOWN else ""
    return f"{shown}{more}" or "none"


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(item[:80] for item in sorted(ids)[:SHOWN])
    return shown + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
