"""Who is evicted for overuse: never one within its grant, and one per GPU in cool_down."""

from __future__ import annotations

from random import Random

from attrs import evolve

from sgpud.core.limits.overuse import Excess, OveruseState, step
from sgpud.core.limits.overuse_eviction import EvictionOrder, Orders, ordered
from sgpud.core.limits.settings import LimitSettings, OveruseAction
from tests.core.limits.overuse_histories import ALICE, BOB, GAP, history
from tests.core.values import GIB, uuid

SETTINGS = LimitSettings(overuse=OveruseAction.EVICT, dry_run=False)
GPU = uuid(0)


def over(at: float, container: tuple[str, str] = ALICE) -> dict[str, OveruseState]:
    """The GPU at a time: this container has the largest excess."""
    one = Excess(at - 30.0, f"team/{container[0]}", 8 * GIB, 11 * GIB, "it is the largest")
    return {GPU: OveruseState(at, {container: one}, container)}


def decided(
    before: Orders,
    overuse: dict[str, OveruseState],
    now: float,
    settings: LimitSettings = SETTINGS,
) -> Orders:
    return ordered(before, overuse, settings, 0.0, now, GAP)


def test_the_largest_is_evicted_once_the_cool_down_after_the_start_is_over() -> None:
    assert decided({}, over(59.0), 59.0) == {}
    assert decided({}, over(60.0), 60.0) == {
        GPU: EvictionOrder(
            60.0,
            ALICE[0],
            "team/a-1",
            f"container main has used 3GiB more memory of GPU {GPU} than the 8GiB it was granted"
            " for 30 s",
        )
    }


def test_an_order_stands_while_its_pod_is_the_largest_and_then_the_gpu_cools_down() -> None:
    orders = decided({}, over(60.0), 60.0)
    orders = decided(orders, over(300.0), 300.0)
    assert orders[GPU].pod == ALICE[0]
    orders = decided(orders, over(305.0, BOB), 305.0)
    assert orders == {GPU: EvictionOrder(305.0)}
    assert decided(orders, over(364.0, BOB), 364.0) == orders
    assert decided(orders, over(365.0, BOB), 365.0)[GPU].pod == BOB[0]


def test_an_order_does_not_outlast_its_samples() -> None:
    orders = decided({}, over(60.0), 60.0)
    assert decided(orders, over(60.0), 60.0 + GAP)[GPU].pod == ALICE[0]
    assert decided(orders, over(60.0), 61.0 + GAP) == {GPU: EvictionOrder(61.0 + GAP)}
    assert decided(orders, {}, 65.0) == {GPU: EvictionOrder(65.0)}


def test_nobody_is_evicted_unless_it_is_configured() -> None:
    orders = decided({}, over(60.0), 60.0)
    for action in (OveruseAction.REPORT, OveruseAction.OFF):
        settings = evolve(SETTINGS, overuse=action)
        assert decided({}, over(60.0), 60.0, settings) == {}
        assert decided(orders, over(65.0), 65.0, settings) == {GPU: EvictionOrder(65.0)}


def test_each_gpu_cools_down_by_itself() -> None:
    orders = decided({}, over(60.0), 60.0)
    (state,) = over(65.0, BOB).values()
    both = decided(orders, {**over(65.0), uuid(1): state}, 65.0)
    assert (both[GPU].pod, both[uuid(1)].pod) == (ALICE[0], BOB[0])


def test_in_10_000_histories_none_is_within_its_grant_and_one_per_gpu_in_cool_down() -> None:
    random = Random(15)  # noqa: S311 - a history, not a key
    evicted = changes = 0
    for number in range(10_000):
        settings, samples = history(random)
        cool_down = random.choice([5.0, 15.0, 30.0])
        settings = evolve(settings, overuse=OveruseAction.EVICT, dry_run=False, cool_down=cool_down)
        state: OveruseState | None = None
        orders: Orders = {}
        stood, pod = 0.0, ""
        for seen in samples:
            state = step(state, seen, settings, GAP)
            now = seen.at + random.choice([0.0, 0.0, 1.0])
            orders = decided(orders, {seen.uuid: state}, now, settings)
            order = orders.get(seen.uuid)
            if order is None or not order.pod:
                pod = ""
                continue
            uses = [one for one in seen.uses if one.container[0] == order.pod]
            assert any(
                one.used is not None and one.used > one.granted + settings.tolerance for one in uses
            ), (number, seen)
            assert "-" in order.pod
            if order.pod != pod:
                evicted += 1
                changes += stood > 0.0
                assert now - stood >= cool_down, (number, seen)
            stood, pod = now, order.pod
    assert evicted > 1000
    assert changes > 100, "some GPUs have a second one"
