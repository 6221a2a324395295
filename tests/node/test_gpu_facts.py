"""What the daemon logs and counts of its GPUs, and the operator's commands."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from attrs import evolve, frozen
from twisted.internet.task import Clock

from sgpud.core.gpu.gpu import Gpu, Mig, UnreadableGpu
from sgpud.core.gpu.observations import EventKind, GpuEvent, Sample
from sgpud.core.health.machine import HealthPhase
from sgpud.core.health.node_health import UnknownGpuError, health_of, verdict
from sgpud.core.planning.advance import advance
from sgpud.core.planning.node import Node
from sgpud.node.gpu_facts import LOG_AGAIN, GpuFacts
from tests.surroundings import listening

A = Gpu("GPU-aaaa", 0, "NVIDIA L4", 24 << 30, compute=(8, 9))
B = evolve(A, uuid="GPU-bbbb", index=1)
PASSED = Sample(A.uuid, 1, 2, 0, 0, 0)


class Kind(Enum):
    GONE = "no-driver"
    HUNG = "hung"


@frozen
class Fault:
    kind: Kind

    def __str__(self) -> str:
        return f"{self.kind.value}: of the test"


class World:
    """Facts of two GPUs, reconciled after each."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.node = Node()
        self.reconciliations = 0
        self.kept: list[Node] = []
        self.counted: list[tuple[str, int, int]] = []
        self.facts = GpuFacts(self, self.clock, self.kept.append, self._count, lambda: None)
        self.facts.inventory((A, B), "550")

    def _count(self, gpu: str, number: int, times: int) -> None:
        self.counted.append((gpu, number, times))

    def update(self, **facts: Any) -> None:
        self.node = evolve(self.node, **facts)

    def change(self, step: Callable[[Node], Node]) -> None:
        changed = step(self.node)
        if changed is not self.node:
            self.reconciliations += 1
            self.node = advance(changed, self.clock.seconds(), 0.0)
            self.facts.reconciled(self.node)

    def xid(self, number: int, times: int = 1) -> None:
        self.facts.event(GpuEvent(A.uuid, EventKind.XID, number, count=times))

    def phase(self) -> HealthPhase:
        return health_of(self.node, A.uuid).phase


def test_a_transition_is_logged_with_its_reason_and_remedy() -> None:
    world = World()
    with listening() as said:
        world.xid(48)
    (line,) = said.about("healthy -> unhealthy")
    assert "XID 48: double-bit ECC error" in line
    steps = ["sgpud release", "nvidia-smi --gpu-reset -i GPU-aaaa", "sgpud acquire", "sgpud heal"]
    places = [line.index(step) for step in steps]
    assert places == sorted(places)


def test_a_gpu_that_disappears_is_a_warning() -> None:
    world = World()
    with listening() as said:
        world.facts.inventory((B,), "550")
    (line,) = said.about("healthy -> unhealthy (gone")
    assert "free shares are removed" in line
    assert "on purpose" in line
    (event,) = [each for each in said.events if each.get("gpu") == A.uuid]
    assert event["log_level"].name == "warn"


def test_the_same_transition_is_not_logged_again() -> None:
    world = World()
    world.xid(48)
    with listening() as said:
        world.xid(48)
        world.xid(48)
    assert said.lines == []


def test_an_application_xid_is_logged_once_a_minute_and_counted_each_time() -> None:
    world = World()
    with listening() as said:
        for _ in range(100):
            world.xid(13)
        assert len(said.about("XID 13")) == 1
        world.clock.advance(LOG_AGAIN)
        world.xid(13, times=7)
        assert len(said.about("XID 13")) == 2
    assert sum(times for _, _, times in world.counted) == 107
    assert world.phase() is HealthPhase.HEALTHY
    assert world.reconciliations == 1


def test_an_unknown_xid_is_logged_and_counted_but_changes_nothing() -> None:
    world = World()
    with listening() as said:
        world.xid(4711)
    assert world.counted == [(A.uuid, 4711, 1)]
    assert "XID 4711" in said.lines[0]
    assert "[health]" in said.lines[0]
    assert world.reconciliations == 1


def test_a_sample_of_an_unknown_gpu_triggers_no_reconciliation() -> None:
    world = World()
    reconciliations = world.reconciliations
    world.facts.samples((evolve(PASSED, uuid="GPU-cccc"),))
    assert world.reconciliations == reconciliations


def test_what_nvml_reports_is_kept_where_memory_is_unknown() -> None:
    world = World()
    world.facts.samples((evolve(PASSED, used=None, utilisation=7),))
    assert world.node.samples[A.uuid][0].utilisation == 7


def test_a_gpu_stays_unhealthy_until_probes_have_passed() -> None:
    world = World()
    world.facts.event(GpuEvent(A.uuid, EventKind.ERROR, detail="GPU is lost (NVML error 15)"))
    assert world.phase() is HealthPhase.UNHEALTHY
    with listening() as said:
        for _ in range(4):
            world.clock.advance(60.0)
            world.facts.samples((PASSED,))
    assert world.phase() is HealthPhase.HEALTHY
    assert said.about("unhealthy -> probation")
    assert said.about("probation -> healthy")


def test_an_error_of_a_gpu_without_a_uuid_is_found_by_its_index() -> None:
    world = World()
    world.facts.error("0", "GPU is lost (NVML error 15)")
    assert world.phase() is HealthPhase.UNHEALTHY
    world.facts.error("7", "GPU is lost (NVML error 15)")
    world.facts.error(B.uuid, "is an event as well")
    assert health_of(world.node, B.uuid).phase is HealthPhase.HEALTHY


@pytest.mark.parametrize(
    ("kind", "phase"), [(Kind.GONE, HealthPhase.PROBATION), (Kind.HUNG, HealthPhase.UNHEALTHY)]
)
def test_a_driver_that_was_not_loaded_has_reset_the_gpus(kind: Kind, phase: HealthPhase) -> None:
    world = World()
    world.xid(48)
    world.facts.fault(Fault(kind))
    assert world.node.probe_problem == f"{kind.value}: of the test"
    world.facts.inventory((A, B), "550")
    assert world.phase() is phase


def test_the_operator_cordons_uncordons_and_heals() -> None:
    world = World()
    assert world.facts.cordon("0") == {A.uuid: ""}
    assert health_of(world.node, A.uuid).cordoned
    assert world.facts.uncordon(A.uuid) == {A.uuid: ""}
    assert not health_of(world.node, A.uuid).cordoned
    world.xid(79)
    assert world.facts.heal("0") == {A.uuid: ""}
    assert world.phase() is HealthPhase.PROBATION


def test_a_command_that_changes_nothing_says_why_and_what_would() -> None:
    world = World()
    assert world.facts.heal("0") == {A.uuid: "is healthy: nothing to heal"}
    assert world.facts.uncordon("0") == {A.uuid: "is not cordoned"}
    world.facts.cordon("0")
    assert world.facts.cordon("0") == {A.uuid: "is already cordoned"}
    part = Gpu("MIG-a", 0, A.product, 2**30, mig=Mig(A.uuid, 1, 0))
    world.facts.inventory((part, B), "550")
    assert world.facts.uncordon(part.uuid) == {
        part.uuid: f"is not cordoned; run `sgpud uncordon {A.uuid}` for its physical GPU"
    }
    assert f"sgpud uncordon {A.uuid}" in verdict(world.node, part).withheld
    assert world.facts.uncordon(A.uuid) == {A.uuid: ""}
    assert "cordoned" not in verdict(world.node, part).withheld


@pytest.mark.parametrize("name", ["2", "GPU-cccc", "", "-1"])
def test_an_unknown_gpu_is_refused_with_the_gpus_that_exist(name: str) -> None:
    world = World()
    with pytest.raises(UnknownGpuError) as raised:
        world.facts.cordon(name)
    assert A.uuid in str(raised.value)
    assert world.reconciliations == 1


def test_each_reconciliation_is_saved() -> None:
    world = World()
    world.xid(79)
    assert world.kept[-1] is world.node


def test_a_gpu_that_cannot_be_shared_is_a_fact_and_is_logged_once() -> None:
    world = World()
    lost = UnreadableGpu(4, "GPU is lost (NVML error 15)", pci="0000:3b:00.0")
    with listening() as said:
        world.facts.unreadable((lost,))
        world.facts.unreadable((lost,))
    (line,) = said.about("cannot be shared")
    assert line == "GPU 4 (0000:3b:00.0) cannot be shared: GPU is lost (NVML error 15)"
    assert list(world.node.unreadable) == [lost]
    for name in ("4", "3b:00.0"):
        with pytest.raises(UnknownGpuError, match="cannot be shared: GPU is lost"):
            world.facts.cordon(name)
    world.facts.unreadable(())
    assert not world.node.unreadable
