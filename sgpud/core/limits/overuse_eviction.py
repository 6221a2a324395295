"""Who is evicted for overuse: of each GPU at most one pod in `cool_down`.

It follows what `overuse` finds of each GPU. An order to evict a pod stands as long as that pod
has the largest excess, in samples that keep coming; the cool-down of the GPU begins when it no
longer does, because the pod has ended, keeps to its grant again, or is no longer the largest.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from sgpud.core.limits.overuse import OveruseState
from sgpud.core.limits.settings import LimitSettings, OveruseAction


@frozen
class EvictionOrder:
    """The order to evict a pod of one GPU, or when the last one stood."""

    at: float
    """When it last stood, in monotonic seconds."""
    pod: str = ""
    """Its UID; empty: it does not stand any more."""
    named: str = ""
    """NAMESPACE/NAME."""
    why: str = ""


Orders = Mapping[str, EvictionOrder]
"""By UUID of the GPU."""


def ordered(
    before: Orders,
    overuse: Mapping[str, OveruseState],
    settings: LimitSettings,
    started: float,
    now: float,
    gap: float,
) -> Orders:
    """The orders as they are at `now`.

    `started`: when this process began, which knows nothing of evictions before; `gap`: seconds
    after which a sample says nothing any more.
    """
    if settings.overuse is not OveruseAction.EVICT:
        return {uuid: EvictionOrder(now if one.pod else one.at) for uuid, one in before.items()}
    found = dict(before)
    for uuid in {*before, *overuse}:
        last, state = before.get(uuid, EvictionOrder(started)), overuse.get(uuid)
        victim = state.victim if state and now <= state.at + gap else None
        if state and victim and (last.pod == victim[0] or _cooled(last, settings, now)):
            one = state.over[victim]
            why = f"container {victim[1]} {one.told(uuid, state.at)}"
            found[uuid] = EvictionOrder(now, victim[0], one.pod, why)
        elif last.pod:
            found[uuid] = EvictionOrder(now)
    return found


def _cooled(last: EvictionOrder, settings: LimitSettings, now: float) -> bool:
    return not last.pod and now >= last.at + settings.cool_down
