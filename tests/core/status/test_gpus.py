"""Whose the processes on a GPU are, and what each container uses of it."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from sgpud.core.gpu.observations import GpuProcess, GpuProcesses, ProcessOwner, Sample, Usage
from sgpud.core.health.machine import HealthPhase
from sgpud.core.intset import IntSet
from sgpud.core.limits.settings import LimitSettings, MemoryLimits
from sgpud.core.planning.holdings import CheckpointState, Holder
from sgpud.core.planning.node import Node, measured
from sgpud.core.status.gpus import ContainerView, GpuStateView, gpu_states, usage_view
from sgpud.core.status.pools import holder_views
from tests.core.values import (
    GIB,
    OTHER,
    POOL,
    checkpoint,
    fallen,
    gpu,
    grant,
    mig,
    node,
    sharing,
    uuid,
)

A, B = uuid(0), uuid(1)
TRAIN, SERVE, ALIEN = (f"{number:08x}-0000-4000-8000-000000000000" for number in (1, 2, 3))


def holds(pod: str, container: str = "main", size: int = 0, **shares: Any) -> Holder:
    """A container that holds two shares of A."""
    given = {A: IntSet.span(0, 2), **shares}
    sizes = dict.fromkeys(given, size) if size else {}
    return Holder(pod, container, POOL, given, sizes=sizes, namespace="team", name=f"pod-{pod[:8]}")


def of(usage: Usage | None, *holders: Holder, known: CheckpointState | None = None) -> GpuStateView:
    """The state of GPU A at 10 s."""
    of = node(sharing(8), [gpu(0), gpu(1)], known or checkpoint(*holders))
    return seen(of, usage)[0]


def seen(of: Node, usage: Usage | None = None, now: float = 10.0) -> tuple[GpuStateView, ...]:
    by_gpu: dict[str, list[Any]] = {}
    for (_, name), views in holder_views(of).items():
        by_gpu.setdefault(name, []).extend(views)
    return gpu_states(of, by_gpu, usage, now)


def usage(
    *found: tuple[GpuProcess, ProcessOwner | None], problem: str = "", **running: Any
) -> Usage:
    """These processes on A, each where it is; None: it has ended since."""
    processes = tuple(process for process, _ in found)
    places = {process.pid: place for process, place in found if place is not None}
    return Usage(
        8.5, {A: GpuProcesses(A, processes, **running), B: GpuProcesses(B)}, places, problem
    )


def inside(uid: str, container: str = "", **more: Any) -> ProcessOwner:
    return ProcessOwner(
        pods=(uid,), container=container, container_id="c" * 64, command="python3", **more
    )


def container(state: GpuStateView, number: int = 0) -> ContainerView:
    return state.containers[number]


def test_a_container_uses_what_its_processes_use_together() -> None:
    state = of(
        usage(
            (GpuProcess(1, 3 * GIB, 40), inside(TRAIN, "main")),
            (GpuProcess(2, GIB, 70), inside(TRAIN, "main")),
            (GpuProcess(3, GIB, 5), inside(SERVE, "main")),
        ),
        holds(TRAIN, size=GIB),
        holds(SERVE),
    )
    train, serve = state.containers
    assert (train.processes, train.used, train.utilisation) == (2, 4 * GIB, 100)
    assert (train.shares, train.granted, train.over) == (2, 2 * GIB, 2 * GIB)
    assert (serve.used, serve.granted, serve.over) == (GIB, None, None)
    assert [one.owner for one in state.processes] == ["holder"] * 3
    assert state.processes[0].pod == f"pod-{TRAIN[:8]}"
    assert state.use_problem == ""


def test_use_below_the_grant_is_not_overuse_and_no_use_is_zero() -> None:
    state = of(usage((GpuProcess(1, GIB, 0), inside(TRAIN, "main"))), holds(TRAIN, size=GIB))
    assert container(state).over == 0
    idle = of(usage(), holds(TRAIN, size=GIB))
    assert (container(idle).used, container(idle).processes, container(idle).over) == (0, 0, 0)


def test_unreported_memory_of_a_process_is_not_zero() -> None:
    state = of(
        usage(
            (GpuProcess(1, None, None), inside(TRAIN, "main")),
            (GpuProcess(2, GIB, 5), inside(TRAIN, "main")),
        ),
        holds(TRAIN, size=GIB),
    )
    one = container(state)
    assert (one.processes, one.used, one.over, one.utilisation) == (2, None, None, None)


def test_without_a_name_the_only_holder_of_the_pod_is_meant() -> None:
    state = of(usage((GpuProcess(1, GIB, 1), inside(TRAIN))), holds(TRAIN))
    assert (state.processes[0].owner, state.processes[0].container) == ("holder", "main")
    assert container(state).used == GIB


def test_of_two_holders_in_a_pod_neither_is_guessed() -> None:
    state = of(
        usage(
            (GpuProcess(1, GIB, 1), inside(TRAIN)), (GpuProcess(2, GIB, 1), inside(SERVE, "main"))
        ),
        holds(TRAIN, "one"),
        holds(TRAIN, "two"),
        holds(SERVE),
    )
    assert state.processes[0].owner == "unknown"
    assert "which holder" in state.processes[0].problem
    assert [one.used for one in state.containers] == [None, None, GIB]


def test_a_container_beside_the_holder_holds_none() -> None:
    state = of(usage((GpuProcess(1, GIB, 1), inside(TRAIN, "sidecar"))), holds(TRAIN))
    assert (state.processes[0].owner, state.processes[0].container) == ("shareless", "sidecar")
    assert container(state).used == 0


def test_pods_without_a_share_and_the_node_itself_show_as_such() -> None:
    state = of(
        usage(
            (GpuProcess(1, 3 * GIB, 1), inside(ALIEN, "main")),
            (GpuProcess(2, 2 * GIB, 1), ProcessOwner(cgroup="/user.slice", command="Xorg")),
            (GpuProcess(3, GIB, 1), ProcessOwner(cgroup="/", own=True)),
        ),
        holds(TRAIN),
    )
    alien, outside, own = state.processes
    assert (alien.owner, alien.uid, alien.pod) == ("shareless", ALIEN, "")
    assert (outside.owner, outside.command, outside.cgroup) == ("outside", "Xorg", "/user.slice")
    assert own.owner == "shareless"
    assert "sgpud's own pod" in own.problem
    assert container(state).used == 0


def test_who_holds_another_gpu_holds_none_of_this_one() -> None:
    other = evolve(holds(TRAIN), shares={B: IntSet.span(0, 1)})
    state = of(usage((GpuProcess(1, GIB, 1), inside(TRAIN, "main"))), other)
    assert (state.processes[0].owner, state.processes[0].pod) == ("shareless", other.name)
    assert state.containers == ()


def test_a_process_that_cannot_be_placed_leaves_nothing_certain() -> None:
    state = of(
        usage(
            (GpuProcess(1, GIB, 1), inside(TRAIN, "main")),
            (
                GpuProcess(2, GIB, 1),
                ProcessOwner(problem="its cgroup cannot be read: Permission denied"),
            ),
        ),
        holds(TRAIN, size=GIB),
    )
    assert container(state).used is None
    assert container(state).over is None
    assert "Permission denied" in state.use_problem


def test_one_that_has_ended_counts_no_more() -> None:
    state = of(usage((GpuProcess(1, GIB, 1), None)), holds(TRAIN))
    assert state.processes == ()
    assert container(state).used == 0


def test_a_problem_is_shown_instead_of_numbers() -> None:
    state = of(usage(problem="needs hostPID: true"), holds(TRAIN))
    assert state.use_problem == "needs hostPID: true"
    assert container(state).used is None
    silent = Usage(8.5, {A: GpuProcesses(A, problem="NVML does not tell")}, {})
    assert of(silent, holds(TRAIN)).use_problem == "NVML does not tell"
    assert "not known yet" in of(None, holds(TRAIN)).use_problem
    assert container(of(None, holds(TRAIN))).used is None


def test_without_a_checkpoint_no_process_is_called_shareless() -> None:
    running = usage((GpuProcess(1, GIB, 1), inside(ALIEN, "main")))
    state = of(running, known=checkpoint(holds(TRAIN), problem="checkpoint: not JSON"))
    assert state.processes[0].owner == "unknown"
    assert "not JSON" in state.processes[0].problem
    assert container(state).used == 0


def test_a_kubelet_in_a_pod_is_found_by_the_pod_that_holds() -> None:
    place = evolve(inside(TRAIN, "main"), pods=(ALIEN, TRAIN))
    state = of(usage((GpuProcess(1, GIB, 1), place)), holds(TRAIN))
    assert (state.processes[0].owner, state.processes[0].uid) == ("holder", TRAIN)


def test_shares_of_two_pools_are_one_container() -> None:
    place = evolve(holds(TRAIN), resource=OTHER)
    state = of(
        usage((GpuProcess(1, 3 * GIB, 1), inside(TRAIN, "main"))), holds(TRAIN, size=GIB), place
    )
    assert [(one.shares, one.granted, one.over) for one in state.containers] == [(4, None, None)]
    memory = evolve(place, sizes={A: GIB})
    state = of(
        usage((GpuProcess(1, 3 * GIB, 1), inside(TRAIN, "main"))), holds(TRAIN, size=GIB), memory
    )
    assert [(one.granted, one.over) for one in state.containers] == [(4 * GIB, 0)]


def test_what_was_given_this_moment_has_no_processes_yet() -> None:
    given = evolve(
        node(sharing(8), [gpu(0)], checkpoint()), grants=(grant({A: IntSet.span(0, 1)}),)
    )
    (state,) = seen(given, usage())
    assert (container(state).uid, container(state).used) == ("", None)


def test_memory_carries_its_age() -> None:
    known = measured(node(sharing(8), [gpu(0)]), [Sample(A, 5 * GIB, 40 * GIB, 37)], 3.0)
    young, old = seen(known, now=10.0)[0], seen(known, now=18.0)[0]
    assert (young.used, young.utilisation, young.measured_ago, young.fresh) == (
        5 * GIB,
        37,
        7.0,
        True,
    )
    assert (old.used, old.measured_ago, old.fresh) == (5 * GIB, 15.0, False)
    never = seen(node(sharing(8), [gpu(0)]))[0]
    assert (never.used, never.measured_ago, never.fresh) == (None, None, False)


def test_the_age_of_process_data_is_shown() -> None:
    known = node(sharing(8), [gpu(0)])
    assert usage_view(known, None, 10.0).ago is None
    young, old = (usage_view(known, usage(), now) for now in (10.0, 30.0))
    assert (young.ago, young.fresh) == (1.5, True)
    assert (old.ago, old.fresh) == (21.5, False)


def test_an_instance_has_the_worse_health_of_itself_and_its_gpu() -> None:
    parent = gpu(0)
    ill = fallen(node(sharing(8), [mig(parent, 1), gpu(1)]), parent.uuid)
    instance, other = seen(ill)
    assert (instance.health, instance.cause, instance.mig) == (
        HealthPhase.UNHEALTHY.value,
        "XID 79",
        "1/0",
    )
    assert other.health == HealthPhase.HEALTHY.value


def test_a_gpu_that_is_gone_is_shown_while_it_is_held() -> None:
    known = node(sharing(8), [gpu(1)], checkpoint(holds(TRAIN)))
    _, gone = seen(known, usage())
    assert (gone.uuid, gone.missing, gone.health, gone.product) == (A, True, "unknown", "")
    assert container(gone).shares == 2


def test_a_claim_is_used_by_whichever_container_of_its_pod() -> None:
    claim = evolve(holds(TRAIN, "gpu", 4 * GIB), claim=True)
    found = of(
        usage(
            (GpuProcess(1, 3 * GIB, 40), inside(TRAIN, "main")),
            (GpuProcess(2, 6 * GIB, 40), inside(TRAIN, "side")),
        ),
        claim,
    )
    assert (container(found).used, container(found).over) == (9 * GIB, GIB)
    assert {one.owner for one in found.processes} == {"holder"}


def test_by_which_of_several_claims_a_process_has_a_gpu_is_not_guessed() -> None:
    one, two = (evolve(holds(TRAIN, name, 4 * GIB), claim=True) for name in ("a", "b"))
    found = of(usage((GpuProcess(1, 3 * GIB, 40), inside(TRAIN, "a"))), one, two)
    assert [each.used for each in found.containers] == [None, None]
    assert [each.owner for each in found.processes] == ["unknown"]


def test_a_container_with_shares_beside_a_claim_uses_its_shares() -> None:
    claim, shares = evolve(holds(TRAIN, "gpu", GIB), claim=True), holds(TRAIN, "main", GIB)
    found = of(usage((GpuProcess(1, GIB, 40), inside(TRAIN, "main"))), claim, shares)
    assert {each.container: each.used for each in found.containers} == {"gpu": 0, "main": GIB}


@pytest.mark.parametrize("memory", MemoryLimits)
def test_a_gpu_says_whether_a_limit_of_memory_is_required(memory: MemoryLimits) -> None:
    of = evolve(node(sharing(4), [gpu(0)]), limits=LimitSettings(memory=memory))
    (state,) = gpu_states(of, {}, None, 0.0)
    assert state.limit_required == (memory is MemoryLimits.REQUIRE)
