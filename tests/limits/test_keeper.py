"""The keeper: caps before a container starts, put back when one is lost, lifted at a pod's end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import CapTerms
from sgpud.core.limits.pod_caps import CapFacts, CapState
from sgpud.core.limits.settings import MemoryLimits
from sgpud.core.planning.holdings import Holder
from sgpud.limits.keeper import NotLimitedError
from tests.core.values import GIB, mig
from tests.limits.models import DmemModel, MiscModel
from tests.limits.world import GPUS, A, B, World, container, path_of, uid
from tests.surroundings import listening

POD, OTHER = uid(1), uid(2)
MAIN = container("main", IntSet.span(0, 4), at=2000.0)
MIB = 2**20


@pytest.fixture(params=[DmemModel, MiscModel])
def world(request: pytest.FixtureRequest) -> World:
    """A node with either driver, as the keeper finds it at first."""
    made = World(request.param())
    made.look()
    return made


def limit(world: World, pod: str = POD, on: str = A) -> int | None:
    """What the driver has of a pod."""
    return world.driver.limits.get((on, path_of(pod)))


def test_a_pod_is_limited_before_its_container_starts(world: World) -> None:
    world.admit(POD, MAIN)
    assert limit(world) is None
    world.start(MAIN)
    assert limit(world) == 4 * GIB
    assert world.state(POD) == CapState(4 * GIB)


def test_containers_of_a_pod_share_its_limit(world: World) -> None:
    more = container("more", IntSet.span(4, 6))
    other = container("other", IntSet.span(6, 7), on=B)
    world.admit(POD, MAIN, more, other)
    world.start(more)
    assert (limit(world), limit(world, on=B)) == (6 * GIB, GIB)


def test_the_factor_and_the_context_count_and_no_limit_is_above_the_gpu(world: World) -> None:
    world.order(terms=CapTerms(1.5, 600 * MIB))
    world.admit(POD, MAIN)
    world.start(MAIN)
    assert limit(world) == 6 * GIB + 600 * MIB
    large = container("main", IntSet.span(10, 45))
    world.admit(OTHER, large)
    world.start(large)
    assert limit(world, OTHER) == 40 * GIB


def test_a_restart_of_a_container_sets_it_again(world: World) -> None:
    world.admit(POD, MAIN)
    world.start(MAIN)
    world.driver.limits.clear()
    world.start(MAIN)
    assert limit(world) == 4 * GIB


def test_a_limit_that_was_lost_is_put_back(world: World) -> None:
    world.admit(POD, MAIN)
    world.start(MAIN)
    world.driver.limits.clear()
    world.look()
    assert limit(world) == 4 * GIB
    assert world.state(POD) == CapState(4 * GIB, None, late=world.driver.backend == "misc")


def test_another_daemon_finds_the_limits_and_what_is_used(world: World) -> None:
    world.admit(POD, MAIN)
    world.start(MAIN)
    assert world.driver.allocate(A, f"{path_of(POD)}/leaf", GIB)
    world.restart()
    world.look()
    assert world.state(POD) == CapState(4 * GIB, GIB)


def test_a_pod_that_runs_when_the_daemon_comes_is_limited_late_on_misc(world: World) -> None:
    world.now = 3000.0
    world.admit(POD, MAIN)
    world.restart()
    world.look()
    late = world.driver.backend == "misc"
    assert (limit(world), world.state(POD)) == (4 * GIB, CapState(4 * GIB, 0, late))
    # It stays late, however often a container starts again, and whoever looks.
    world.start(MAIN)
    world.restart()
    world.look()
    assert world.state(POD) == CapState(4 * GIB, 0, late)


def test_a_pod_that_has_not_started_yet_is_left_to_its_start(world: World) -> None:
    world.admit(POD, MAIN)
    world.look()
    assert (limit(world), world.sets) == (None, [])


@pytest.mark.parametrize("lingers", [False, True])
def test_the_limit_of_a_pod_that_has_ended_is_lifted(world: World, *, lingers: bool) -> None:
    world.admit(POD, MAIN)
    world.start(MAIN)
    world.end(POD, lingers=lingers)
    world.look()
    assert (world.driver.limits, world.facts.caps, world.record.caps) == ({}, {}, {})


def test_nothing_is_lifted_while_the_checkpoint_cannot_be_read(world: World) -> None:
    world.admit(POD, MAIN)
    world.start(MAIN)
    world.readable = False
    world.look()
    assert limit(world) == 4 * GIB
    assert world.state(POD) == CapState(4 * GIB)


def test_off_lifts_every_limit_and_sets_none(world: World) -> None:
    world.admit(POD, MAIN)
    world.start(MAIN)
    world.order(memory=MemoryLimits.OFF)
    world.start(MAIN)
    assert (world.driver.limits, world.facts.caps) == ({}, {})


def away(world: World) -> None:
    world.away = True


def failing(world: World) -> None:
    world.failing = 1


def unreadable(world: World) -> None:
    world.readable = False


def without_cgroup(world: World) -> None:
    world.cgroups.clear()


def limited_by_another(world: World) -> None:
    world.driver.set(A, path_of(POD), 2 * GIB)


def of_mig(world: World) -> None:
    world.order(gpus={**GPUS, A: mig(GPUS[A], 1)})


def gone(world: World) -> None:
    world.order(gpus={B: GPUS[B]})


TROUBLES = {
    away: "the helper does not answer",
    failing: "failed with 999",
    unreadable: "does not name the container",
    without_cgroup: "the cgroup of the pod was not found",
    limited_by_another: "somebody else has limited it to 2147483648 bytes",
    of_mig: "within a MIG instance",
    gone: "gone from this node",
}


@pytest.mark.parametrize(("trouble", "why"), TROUBLES.items())
def test_with_require_a_container_whose_memory_cannot_be_limited_does_not_start(
    world: World, trouble: Callable[[World], None], why: str
) -> None:
    world.order(memory=MemoryLimits.REQUIRE)
    world.admit(POD, MAIN)
    trouble(world)
    with pytest.raises(NotLimitedError, match=why) as caught:
        world.start(MAIN)
    assert '[limits] memory is "require"' in str(caught.value)
    if trouble is not unreadable:
        state = world.state(POD)
        assert state is not None
        assert (state.limit, state.waits) == (None, True)


@pytest.mark.parametrize(("trouble", "why"), TROUBLES.items())
def test_with_auto_it_starts_and_the_log_and_the_status_say_that_it_is_not_limited(
    world: World, trouble: Callable[[World], None], why: str
) -> None:
    world.admit(POD, MAIN)
    with listening() as said:
        trouble(world)
        world.start(MAIN)
    if trouble is not unreadable:
        state = world.state(POD)
        assert state is not None
        assert why in state.problem
        assert not state.waits
        assert said.about(why) == [f"Pod {POD}: its memory of {A} is not limited: {state.problem}"]


def test_what_kept_it_waiting_is_gone_and_it_starts_in_time(world: World) -> None:
    world.order(memory=MemoryLimits.REQUIRE)
    world.admit(POD, MAIN)
    world.away = True
    with pytest.raises(NotLimitedError):
        world.start(MAIN)
    world.away = False
    world.start(MAIN)
    assert world.state(POD) == CapState(4 * GIB)


def test_what_could_not_be_limited_at_its_start_is_limited_late(world: World) -> None:
    world.admit(POD, MAIN)
    world.away = True
    world.start(MAIN)
    world.away = False
    world.look()
    assert world.state(POD) == CapState(4 * GIB, None, late=world.driver.backend == "misc")


def test_a_pod_of_which_nobody_knew_that_it_started_is_limited_late(world: World) -> None:
    world.now = 2500.0
    world.admit(POD, MAIN)
    world.readable = False
    world.start(MAIN)
    world.readable = True
    world.look()
    assert limit(world) == 4 * GIB


def test_a_limit_of_another_is_left_alone_whatever_is_looked_at(world: World) -> None:
    world.admit(POD, MAIN)
    limited_by_another(world)
    world.start(MAIN)
    world.look()
    world.end(POD, lingers=True)
    world.look()
    assert limit(world) == 2 * GIB


def test_places_promise_no_memory(world: World) -> None:
    places = container("main", IntSet.span(0, 4), size=0)
    world.admit(POD, places)
    world.look()
    assert (world.driver.limits, world.facts.caps) == ({}, {})


def test_the_toolkits_limit_of_each_container_is_enough_on_misc() -> None:
    for driver in (MiscModel(), DmemModel()):
        world = World(driver)
        world.order(by_toolkit=frozenset(GPUS))
        world.look()
        world.admit(POD, MAIN)
        world.start(MAIN)
        world.look()
        assert limit(world) == (None if driver.backend == "misc" else 4 * GIB)


def test_a_driver_that_is_released_is_left_alone(world: World) -> None:
    world.admit(POD, MAIN)
    world.start(MAIN)
    world.order(readable=False)
    world.driver.limits.clear()
    world.look()
    assert limit(world) is None


def test_without_a_helper_there_is_nothing(world: World) -> None:
    world.installed = False
    world.look()
    assert world.facts == CapFacts()
    world.away = True
    world.admit(POD, MAIN)
    world.start(MAIN)
    world.look()
    state = world.state(POD)
    assert state is not None
    assert state.problem == "the helper does not answer"
    world.end(POD)
    world.look()
    assert world.facts == CapFacts()


CLAIM = Holder(
    POD, "gpu", "deepomatic.com/shared-gpu", {A: IntSet.span(0, 2)}, {}, {A: GIB}, claim=True
)


def prepared(world: World) -> None:
    """A claim of a pod is prepared: it is in the books before its pod is limited."""
    world.admit(POD, CLAIM)
    world.keeper.before_claim(POD, [CLAIM])


def test_claims_are_limited_before_their_pod_starts_and_seen_at_each_look(world: World) -> None:
    prepared(world)
    while not world.reactor.quiet:
        world.reactor.let_in()
    assert limit(world) == 2 * GIB
    world.look()
    assert limit(world) == 2 * GIB
    world.end(POD, lingers=True)
    world.look()
    assert limit(world) is None


def test_the_limit_of_a_claim_that_is_prepared_during_a_look_is_not_lifted(world: World) -> None:
    world.meanwhile.append(lambda: prepared(world))
    world.look()
    assert world.sets == [(POD, A, 2 * GIB, False)]
    assert limit(world) == 2 * GIB


def test_a_pod_that_starts_during_a_look_and_cannot_be_limited_is_tried_again(
    world: World,
) -> None:
    def starts() -> None:
        world.admit(POD, MAIN)
        world.failing = 1
        world.keeper.before_start(MAIN.resource, MAIN.shares)

    world.late.append(starts)
    world.look()
    assert limit(world) is None
    world.look()
    assert limit(world) == 4 * GIB
