"""What Allocate answers: the ids that the kubelet chose, judged against the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import field, frozen

from sgpud.core.allocation.injection import GrantedGpu, Injection, answer
from sgpud.core.allocation.pending import PendingGrants
from sgpud.core.errors import SgpudError
from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import memory_cap
from sgpud.core.planning.holdings import Grant
from sgpud.core.planning.plan import Availability, GpuShares, Plan, Pool
from sgpud.core.sharing.rules import Multiple
from sgpud.core.sharing.share_id import SEPARATOR
from sgpud.core.units import format_size

SHIFT = 30
"""A place is `group position << SHIFT | number`: one integer sorts and groups at C speed."""


@frozen(eq=False)
class IdIndex:
    """Where each listed id of a pool belongs."""

    places: Mapping[str, int]
    shape: tuple[tuple[str, IntSet], ...]
    """The GPUs and numbers it was made of, to know when it can be kept."""


def index(pool: Pool, previous: IdIndex | None = None) -> IdIndex:
    """The index of a pool; `previous` itself when the pool lists the same ids."""
    shape = tuple((group.uuid, group.listed) for group in pool.groups)
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
    """What a container is to be given: the ids that the kubelet chose, by the GPU they are of."""

    ids: Sequence[str]
    numbers: Mapping[int, IntSet]
    """By position of the GPU in the pool."""


@frozen
class ChosenGpu:
    """What a container gets, before it is put in words."""

    taken: tuple[tuple[GpuShares, IntSet], ...]

    def grant(self, resource: str, at: float) -> Grant:
        """The note of it, given at `at` (since the epoch)."""
        return Grant(
            resource,
            {group.uuid: numbers for group, numbers in self.taken},
            {group.uuid: group.parts for group, _ in self.taken},
            at,
            {group.uuid: group.size for group, _ in self.taken if group.size},
        )


@frozen
class Allocation:
    """One container's allocation."""

    answer: Injection
    shares: Mapping[str, IntSet]
    """Share numbers by GPU UUID."""
    per_gpu: Mapping[str, int]
    """Into how many shares each of those GPUs is cut."""
    sizes: Mapping[str, int] = field(factory=dict)
    """Bytes of one share of each of those GPUs, for memory shares."""


def allocate(
    plan: Plan, pool: Pool, index: IdIndex, ids: Sequence[str], at: float = 0.0
) -> Allocation:
    """What a container that was chosen these ids gets; RefusedError otherwise.

    `at` is now, in seconds since the epoch; the container is told, unless it is 0. The order of the
    ids does not matter. These are the three steps in one; only the second has to see every grant.
    """
    chosen = choose(plan, pool, requested(index, ids), PendingGrants())
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


def choose(plan: Plan, pool: Pool, request: Request, pending: PendingGrants) -> ChosenGpu:
    """What is given; RefusedError otherwise.

    It is judged by the room that there is now, beside the grants that the plan does not count yet:
    a share that is asked for is free, whoever the plan says holds it. What was withheld or began to
    drain a moment ago is still given, unless its GPU is sick: the kubelet may have chosen it from
    the list before, and a refusal fails the pod.
    """
    if plan.chosen is None:
        raise RefusedError(RefusalRule.METHOD, request.ids, _NO_METHOD)
    taken = [(pool.groups[position], numbers) for position, numbers in request.numbers.items()]
    for group, numbers in taken:
        _check(group, numbers, plan, request.ids, pending)
    _check_multiple([group for group, _ in taken], request.ids, pool)
    return ChosenGpu(tuple(taken))


def choose_all(
    plan: Plan, pool: Pool, requests: Sequence[Request], pending: PendingGrants
) -> list[ChosenGpu]:
    """What several containers are given, each beside those before it; all of it, or RefusedError.

    Nothing is noted in `pending`.
    """
    beside = pending.copy() if len(requests) > 1 else pending
    found = []
    for request in requests:
        found.append(choose(plan, pool, request, beside))
        if len(requests) > 1:
            beside.note(found[-1].grant(pool.resource, 0.0))
    return found


def allocation(plan: Plan, pool: Pool, choice: ChosenGpu, at: float) -> Allocation:
    """The answer for a container that gets this."""
    if plan.chosen is None:
        raise RefusedError(RefusalRule.METHOD, (), _NO_METHOD)
    grant = choice.grant(pool.resource, at)
    taken = [
        GrantedGpu(group.gpu, len(numbers), group.parts, group.size)
        for group, numbers in choice.taken
        if group.gpu is not None
    ]
    bytes_of = [(item.gpu, item.shares * item.size) for item in taken]
    cap = memory_cap(bytes_of, plan.cap_factor) if plan.cap_factor else 0
    given = answer(plan.chosen, plan.host, taken, prefix=pool.prefix, at=at, cap=cap)
    return Allocation(given, grant.shares, grant.per_gpu, grant.sizes)


def _places(index: IdIndex, ids: Sequence[str]) -> list[int]:
    if not ids:
        raise RefusedError(RefusalRule.NOTHING, (), "no share was asked for")
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
    if group.availability is Availability.UNHEALTHY or group.gpu is None:
        rule, reason = RefusalRule.UNHEALTHY, group.reason
    elif missing:
        rule, reason = RefusalRule.METHOD, missing
    elif not numbers - group.late:
        return
    elif group.availability is Availability.WITHHELD:
        rule, reason = RefusalRule.WITHHELD, group.reason
    elif pending.room(group, numbers) < len(numbers):
        rule = RefusalRule.ROOM
        reason = f"as many of its shares are held as it has now ({group.factor})"
    else:
        return
    mine = [item for item in ids if item.startswith(group.uuid + SEPARATOR)]
    raise RefusedError(rule, mine, f"{group.uuid}: {reason}: ")


def _check_multiple(groups: Sequence[GpuShares], ids: Sequence[str], pool: Pool) -> None:
    count, multiple = len(ids), pool.multiple
    if multiple is Multiple.REFUSE and count > 1:
        text = f'{count} shares for one container, but [sharing] multiple = "refuse" allows 1: '
    elif multiple is Multiple.DISTINCT and len(groups) < count:
        of = ", ".join(group.uuid for group in groups)
        text = (
            f"{count} shares fell on {len(groups)} of the {len(pool.groups)} GPUs ({of}), but "
            f'[sharing] multiple = "distinct" means {count} different GPUs: '
        )
    elif len(groups) > 1 and pool.memory:
        wanted = count * max(group.size for group in groups)
        text = (
            f"{count} memory shares ({format_size(wanted)}) have to be of one GPU, but these fell "
            f"on {len(groups)}. Free now: {_room(pool)}; shares: "
        )
    elif multiple is Multiple.SAME and len(groups) > 1:
        of = ", ".join(group.uuid for group in groups)
        text = (
            f'{count} shares fell on {len(groups)} GPUs ({of}), but [sharing] multiple = "same" '
            "means one GPU: "
        )
    else:
        return
    raise RefusedError(RefusalRule.MULTIPLE, ids, text)


def _room(pool: Pool) -> str:
    """The room of each GPU, the largest first."""
    able = [group for group in pool.groups if group.availability is not Availability.UNHEALTHY]
    able.sort(key=lambda group: (-len(group.free), group.uuid))
    shown = ", ".join(
        f"{group.uuid} {len(group.free)} ({format_size(len(group.free) * group.size)})"
        for group in able[:SHOWN]
    )
    return shown + (f" and {len(able) - SHOWN} smaller" if len(able) > SHOWN else "")


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(item[:80] for item in sorted(ids)[:SHOWN])
    return shown + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
