"""Allocate: what a container is given, or why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum

from attrs import field, frozen

from sgpud.core.delivery import Answer, Taken, answer
from sgpud.core.errors import SgpudError
from sgpud.core.index import SHIFT, Index
from sgpud.core.numbers import Numbers
from sgpud.core.plan import Group, Plan, Pool, Standing
from sgpud.core.share import SEPARATOR
from sgpud.core.sharing import Multiple
from sgpud.core.sizes import format_size

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
    SICK = "sick"
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
class Granted:
    """One container's allocation."""

    answer: Answer
    shares: Mapping[str, Numbers]
    """Share numbers by GPU UUID."""
    per_gpu: Mapping[str, int]
    """Into how many shares each of those GPUs is cut."""
    sizes: Mapping[str, int] = field(factory=dict)
    """Bytes of one share of each of those GPUs, for memory shares."""


def allocate(plan: Plan, pool: Pool, index: Index, ids: Sequence[str], at: float = 0.0) -> Granted:
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
        Taken(group.gpu, len(found), group.parts, group.size)
        for group, found in zip(groups, numbers.values(), strict=True)
        if group.gpu is not None
    ]
    if plan.chosen is None:
        raise RefusedError(RefusalRule.METHOD, ids, "how to hand GPUs over is not known yet")
    given = answer(plan.chosen, plan.host, taken, prefix=pool.prefix, at=at)
    shares = {
        group.uuid: Numbers.span(found[0], found[0] + 1) if len(found) == 1 else Numbers.of(found)
        for group, found in zip(groups, numbers.values(), strict=True)
    }
    return Granted(given, shares, per_gpu, sizes)


def _places(index: Index, ids: Sequence[str]) -> list[int]:
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


def _check(group: Group, plan: Plan, ids: Sequence[str]) -> None:
    missing = plan.chosen.unavailable.get(group.uuid) if plan.chosen else None
    if group.standing is Standing.SICK or group.gpu is None:
        rule, reason = RefusalRule.SICK, group.reason
    elif missing:
        rule, reason = RefusalRule.METHOD, missing
    else:
        return
    mine = [item for item in ids if item.startswith(group.uuid + SEPARATOR)]
    raise RefusedError(rule, mine, f"{group.uuid}: {reason}: ")


def _check_multiple(groups: Sequence[Group], ids: Sequence[str], pool: Pool) -> None:
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
    able = [group for group in pool.groups if group.standing is not Standing.SICK]
    able.sort(key=lambda group: (-len(group.free), group.uuid))
    shown = ", ".join(
        f"{group.uuid} {len(group.free)} ({format_size(len(group.free) * group.size)})"
        for group in able[:SHOWN]
    )
    return shown + (f" and {len(able) - SHOWN} smaller" if len(able) > SHOWN else "")


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(item[:80] for item in sorted(ids)[:SHOWN])
    return shown + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
