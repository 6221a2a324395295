"""What Allocate answers: the ids that the kubelet chose, judged against the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import field, frozen

from sgpud.core.allocation.injection import GrantedGpu, Injection, answer
from sgpud.core.errors import SgpudError
from sgpud.core.intset import IntSet
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
    METHOD = "method"
    """The node lacks what the method needs for this GPU."""
    MULTIPLE = "multiple"
    """The ids are against `[sharing] multiple`."""


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
    ids does not matter. Draining and withheld shares are granted while their GPU is well: the
    kubelet may have chosen them from the list before, and a refusal fails the pod.
    """
    places = _places(index, ids)
    numbers: dict[int, list[int]] = {}
    for place in sorted(places):
        numbers.setdefault(place >> SHIFT, []).append(place & _NUMBER)
    groups = [pool.groups[position] for position in numbers]
    for group in groups:
        _check(group, plan, ids)
    _check_multiple(groups, ids, pool)
    per_gpu = {group.uuid: group.parts for group in groups}
    sizes = {group.uuid: group.size for group in groups if group.size}
    taken = [
        GrantedGpu(group.gpu, len(found), group.parts, group.size)
        for group, found in zip(groups, numbers.values(), strict=True)
        if group.gpu is not None
    ]
    if plan.chosen is None:
        raise RefusedError(RefusalRule.METHOD, ids, "how to hand GPUs over is not known yet")
    given = answer(plan.chosen, plan.host, taken, prefix=pool.prefix, at=at)
    shares = {
        group.uuid: IntSet.span(found[0], found[0] + 1) if len(found) == 1 else IntSet.of(found)
        for group, found in zip(groups, numbers.values(), strict=True)
    }
    return Allocation(given, shares, per_gpu, sizes)


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


def _check(group: GpuShares, plan: Plan, ids: Sequence[str]) -> None:
    missing = plan.chosen.unavailable.get(group.uuid) if plan.chosen else None
    if group.availability is Availability.UNHEALTHY or group.gpu is None:
        rule, reason = RefusalRule.UNHEALTHY, group.reason
    elif missing:
        rule, reason = RefusalRule.METHOD, missing
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
