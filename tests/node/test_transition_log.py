"""How GPUs are handed over is logged once, with the reason."""

from __future__ import annotations

from attrs import evolve

from sgpud.core.allocation.injection import InjectionChoice, NodeHost
from sgpud.core.limits.overuse import LARGEST, Excess, OveruseState
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.core.sharing.rules import InjectionMethod
from sgpud.node.transition_log import MethodLog, OveruseLog
from tests.core.values import GIB, uuid
from tests.surroundings import listening

LOOKED = NodeHost(runtime="/usr/bin/nvidia-container-runtime exists")
BY_CDI = Plan(chosen=InjectionChoice(InjectionMethod.CDI, "a CDI spec names them"), host=LOOKED)


def test_the_method_and_its_reason_are_logged_at_first_and_when_they_change() -> None:
    log = MethodLog()
    by_runtime = evolve(BY_CDI, chosen=InjectionChoice(InjectionMethod.NVIDIA_RUNTIME, "found"))
    with listening() as logged:
        for plan in (BY_CDI, BY_CDI, evolve(BY_CDI, notes=("x",)), by_runtime):
            log.look(plan)
    assert logged.lines == [
        "GPUs are handed to containers by cdi: a CDI spec names them",
        "GPUs are handed to containers by nvidia-runtime: found",
    ]


def test_a_gpu_that_cannot_be_handed_over_is_logged_once_with_the_reason() -> None:
    log = MethodLog()
    missing = InjectionChoice(InjectionMethod.DEVICE_NODES, "no other", {uuid(0): "no node"})
    with listening() as logged:
        log.look(Plan(chosen=missing))
        assert logged.lines == []
        log.look(Plan(chosen=missing, host=LOOKED))
        log.look(Plan(chosen=evolve(missing, unavailable={**missing.unavailable}), host=LOOKED))
    assert len(logged.about("cannot be handed over")) == 1
    assert len(logged.about("no node")) == 1


def test_overuse_is_logged_when_it_begins_and_when_it_ends() -> None:
    log, name = OveruseLog(), ("u-1", "main")
    over = Excess(10.0, "team/train", 8 * GIB, 11 * GIB)
    early = Node(overuse={uuid(0): OveruseState(20.0, {name: over})})
    found = {name: evolve(over, verdict=LARGEST)}
    long = Node(overuse={uuid(0): OveruseState(40.0, found, name)})
    with listening() as logged:
        assert log.look(early) == []
        assert logged.lines == []
        (one,) = log.look(long)
        assert (one.gpu, one.container) == (uuid(0), name)
        assert log.look(long) == []
        assert log.look(Node()) == []
    begun, ended = logged.lines
    assert begun == (
        f"team/train/main has used 3GiB more memory of GPU {uuid(0)} than the 8GiB it was granted"
        f" for 30 s: {LARGEST}"
    )
    assert ended.startswith(f"team/train/main no longer uses more memory of GPU {uuid(0)}")
