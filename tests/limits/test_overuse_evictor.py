"""The orders to evict: given while they stand, taken back when nothing says so any more."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve
from twisted.internet.task import Clock

from sgpud.core.limits.overuse import Excess, OveruseState
from sgpud.core.limits.settings import LimitSettings, OveruseAction
from sgpud.core.planning.full_guard import MISSED
from sgpud.core.planning.node import Node
from sgpud.limits.overuse_evictor import OveruseEvictor
from tests.core.values import GIB, sharing, uuid
from tests.surroundings import listening

EVICT = LimitSettings(overuse=OveruseAction.EVICT, dry_run=False)
EVERY = 5.0
GAP = MISSED * EVERY


def over(at: float, limits: LimitSettings = EVICT) -> Node:
    """A node with one container that exceeds its grant, as sampled at a time."""
    one = Excess(at - 30.0, "team/train", 8 * GIB, 11 * GIB, "it is the largest")
    state = OveruseState(at, {("u-1", "main"): one}, ("u-1", "main"))
    terms = sharing(8, measure_every=EVERY)
    return Node(sharing=terms, limits=limits, overuse={uuid(0): state})


def evicting() -> tuple[Clock, OveruseEvictor, list[set[str]]]:
    """An evictor after the cool-down of its start, and the pods of each order."""
    clock, given = Clock(), list[set[str]]()

    def evict(pods: Mapping[str, str]) -> None:
        given.append(set(pods))

    evictor = OveruseEvictor(clock, evict)
    clock.advance(EVICT.cool_down)
    return clock, evictor, given


def test_an_order_is_taken_back_without_new_samples() -> None:
    clock, evictor, given = evicting()
    evictor.look(over(clock.seconds()))
    assert given == [{"u-1"}]
    clock.advance(EVERY)
    evictor.look(over(clock.seconds()))
    assert given[-1] == {"u-1"}
    clock.advance(GAP + 1)
    assert given[-1] == set()
    assert clock.getDelayedCalls() == []


def test_it_is_taken_back_when_nobody_is_over_and_when_it_is_configured_so() -> None:
    for calm in (
        Node(limits=EVICT),
        over(61.0, evolve(EVICT, dry_run=True)),
        over(61.0, LimitSettings()),
    ):
        clock, evictor, given = evicting()
        evictor.look(over(clock.seconds()))
        evictor.look(calm)
        assert given == [{"u-1"}, set()]


def test_a_dry_run_is_logged_once_for_each_pod_and_orders_nothing() -> None:
    clock, evictor, given = evicting()
    with listening() as logged:
        for _ in range(3):
            evictor.look(over(clock.seconds(), evolve(EVICT, dry_run=True)))
            clock.advance(EVERY)
        evictor.stop()
    assert given == [set()] * 3
    (line,) = logged.lines
    assert line.startswith(
        "Without [limits] dry_run, pod team/train would be evicted: container main has used 3GiB"
    )
    assert clock.getDelayedCalls() == []
