"""The overuse of a node: from the samples of its processes to what people see."""

from __future__ import annotations

from attrs import evolve

from sgpud.core.gpu.observations import GpuProcess, GpuProcesses, ProcessOwner, Sample, Usage
from sgpud.core.intset import IntSet
from sgpud.core.limits.node_overuse import used
from sgpud.core.limits.settings import LimitSettings, OveruseAction
from sgpud.core.planning.holdings import Holder
from sgpud.core.planning.node import Node, measured
from sgpud.core.sharing.rules import FullGuardSettings
from sgpud.core.status.gpus import ContainerView, gpu_states
from sgpud.core.status.pools import holder_views
from tests.core.values import GIB, POOL, checkpoint, gpu, node, sharing, uuid

A = uuid(0)
TRAIN, SERVE = (f"{number:08x}-0000-4000-8000-000000000000" for number in (1, 2))


def holds(pod: str, size: int, *numbers: int) -> Holder:
    """A container that holds shares of A, each of so many bytes; 0: places."""
    sizes = {A: size} if size else {}
    shares = {A: IntSet.of(numbers)}
    return Holder(pod, "main", POOL, shares, sizes=sizes, namespace="team", name=pod[:8])


def runs(at: float, **used_by: int | None) -> Usage:
    """A sample: bytes that each pod uses of A."""
    pods = {"train": TRAIN, "serve": SERVE}
    processes = tuple(GpuProcess(pid, size) for pid, size in enumerate(used_by.values(), 1))
    places = {
        pid: ProcessOwner(pods=(pods[name],), container="main")
        for pid, name in enumerate(used_by, 1)
    }
    return Usage(at, {A: GpuProcesses(A, processes)}, places)


def known(*holders: Holder, expected: int = 0) -> Node:
    """A node with one GPU of 40 GiB."""
    guard = FullGuardSettings(expected=expected)
    return node(sharing(8, guard_settings=guard), [gpu(0)], checkpoint(*holders))


def sampled(of: Node, seconds: float, *, full: int = 39, **used_by: int | None) -> Node:
    """The node after so many seconds of samples that all found this."""
    at = 0.0
    while at <= seconds:
        of = measured(of, [Sample(A, used=full * GIB, total=40 * GIB)], at)
        of = used(of, runs(at, **used_by))
        at += 5.0
    return of


def seen(of: Node, now: float) -> ContainerView:
    """The first container of A."""
    (views,) = (views for views in holder_views(of).values())
    return gpu_states(of, {A: views}, None, now)[0].containers[0]


def test_a_container_over_its_memory_shares_is_found_and_shown() -> None:
    of = sampled(known(holds(TRAIN, 4 * GIB, 0, 1)), 30.0, train=10 * GIB)
    state = of.overuse[A]
    assert state.victim == (TRAIN, "main")
    assert (state.overusers[TRAIN, "main"].size, state.overusers[TRAIN, "main"].pod) == (
        2 * GIB,
        f"team/{TRAIN[:8]}",
    )
    view = seen(of, 31.0)
    assert view.over_for == 30.0
    assert view.verdict
    assert seen(of, 131.0).over_for is None, "it is not known any more"


def test_a_calm_node_stays_the_same_object() -> None:
    of = known(holds(TRAIN, 4 * GIB, 0, 1))
    of = measured(of, [Sample(A, used=39 * GIB, total=40 * GIB)], 0.0)
    assert used(of, runs(0.0, train=8 * GIB)) is of
    assert used(of, runs(5.0)) is of


def test_places_promise_what_is_expected_of_them() -> None:
    place = holds(TRAIN, 0, 0)
    assert not sampled(known(place), 60.0, train=30 * GIB).overuse
    of = sampled(known(place, expected=4 * GIB), 30.0, train=6 * GIB)
    assert of.overuse[A].overusers[TRAIN, "main"].size == 2 * GIB


def test_uncertain_use_is_not_held_against_a_container() -> None:
    of = known(holds(TRAIN, 4 * GIB, 0))
    assert not sampled(of, 60.0, train=None).overuse
    lost = evolve(runs(0.0, train=30 * GIB), problem="cannot read /proc")
    of = measured(of, [Sample(A, used=39 * GIB, total=40 * GIB)], 0.0)
    assert not used(of, lost).overuse
    somewhere = {1: ProcessOwner(pods=(TRAIN,), container="", problem="its cgroup is hidden")}
    assert not used(of, evolve(lost, problem="", places=somewhere)).overuse


def test_who_holds_no_share_is_not_judged() -> None:
    assert not sampled(known(holds(TRAIN, 4 * GIB, 0)), 60.0, serve=30 * GIB).overuse


def test_without_pressure_or_when_switched_off_nothing_is_found() -> None:
    of = known(holds(TRAIN, 4 * GIB, 0))
    assert not sampled(of, 60.0, full=20, train=19 * GIB).overuse
    over = sampled(of, 60.0, train=19 * GIB)
    assert over.overuse
    off = evolve(over, limits=LimitSettings(overuse=OveruseAction.OFF))
    assert not used(off, runs(65.0, train=19 * GIB)).overuse


def test_what_the_driver_keeps_counts_for_pressure() -> None:
    of = known(holds(TRAIN, 4 * GIB, 0))
    reserving = evolve(of, gpus=(gpu(0, reserved=2 * GIB),))
    assert sampled(reserving, 30.0, full=37, train=19 * GIB).overuse
    assert not sampled(of, 30.0, full=37, train=19 * GIB).overuse


def test_an_old_measurement_is_no_pressure() -> None:
    of = measured(known(holds(TRAIN, 4 * GIB, 0)), [Sample(A, used=39 * GIB, total=1)], 0.0)
    assert used(of, runs(10.0, train=19 * GIB)).overuse
    assert not used(of, runs(16.0, train=19 * GIB)).overuse
