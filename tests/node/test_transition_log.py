"""How GPUs are handed over is logged once, with the reason."""

from __future__ import annotations

from attrs import evolve

from sgpud.core.allocation.injection import InjectionChoice, NodeHost
from sgpud.core.planning.plan import Plan
from sgpud.core.sharing.rules import InjectionMethod
from sgpud.node.transition_log import MethodLog
from tests.core.values import uuid
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
