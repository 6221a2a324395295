"""One contract for whatever tells of GPUs: fake GPUs, pynvml on the stub, pynvml on a card."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from attrs import define, evolve, field
from twisted.internet.defer import Deferred

from sgpud.core.gpu.gpu import Gpu
from sgpud.core.json_checks import UUID
from sgpud.gpus.fake.file import load, parse_fake_gpus
from sgpud.gpus.fake.monitor import FakeMonitor
from sgpud.gpus.nvml.faults import GpuFault, GpuFaultKind
from sgpud.gpus.nvml.monitor import Machine, NvmlMonitor
from tests.gpus.nvml.stub import VERSIONS, Bench, Stub

FILE = Path(__file__).parent / "fake.toml"


class Source(Protocol):
    def start(self) -> None: ...
    def stop(self) -> Deferred[None]: ...
    def release(self) -> Deferred[bool]: ...
    def acquire(self) -> None: ...


Make = Callable[[Callable[[tuple[Gpu, ...], str], None], Callable[[GpuFault], None]], Source]


@define
class Told:
    """A source of GPUs and all that it has told."""

    bench: Bench
    make: Make
    inventories: list[tuple[Gpu, ...]] = field(factory=list)
    drivers: list[str] = field(factory=list)
    faults: list[GpuFaultKind] = field(factory=list)

    def source(self) -> Source:
        return self.make(self._inventory, lambda fault: self.faults.append(fault.kind))

    def _inventory(self, gpus: tuple[Gpu, ...], driver: str) -> None:
        self.inventories.append(gpus)
        self.drivers.append(driver)

    def has_inventory(self, number: int) -> None:
        self.bench.until(lambda: len(self.inventories) >= number, 40)

    def result(self, deferred: Deferred[bool] | Deferred[None]) -> object:
        found: list[object] = []
        deferred.addCallback(found.append)
        self.bench.until(lambda: found)
        return found[0]


def as_script(gpus: tuple[Gpu, ...]) -> str:
    """The stub's script for the same machine as the file of fake GPUs."""
    lines = []
    for physical in dict.fromkeys(gpu.physical for gpu in gpus):
        parts = [gpu for gpu in gpus if gpu.physical == physical]
        gpu = parts[0]
        compute = gpu.compute or (0, 0)
        product = gpu.product.partition(" MIG ")[0]
        lines += [
            f"gpu {physical}",
            f"name {product}",
            f"minor {gpu.minor}",
            f"pci 0000{gpu.pci.upper()}",
            f"memory {gpu.memory} {gpu.reserved}",
            f"compute {compute[0]} {compute[1]}",
        ]
        if gpu.mig:
            lines.append("mig 1")
        lines += [
            f"instance {part.uuid} {part.mig.gi} {part.mig.ci} {part.memory} 1 {part.product}"
            for part in parts
            if part.mig
        ]
    return VERSIONS + "\n".join(lines) + "\n"


def _real_card() -> bool:
    count = ctypes.c_uint()
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    failed = nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    return not failed and count.value > 0


@pytest.fixture(params=["fake", "stub", pytest.param("card", marks=pytest.mark.gpu)])
def told(request: pytest.FixtureRequest, bench: Bench) -> Told:
    if request.param == "fake":
        return Told(bench, partial(FakeMonitor, bench.reactor, load(FILE)))
    if request.param == "card":
        if not _real_card():
            pytest.skip("no NVIDIA driver on this machine")
        return Told(bench, partial(NvmlMonitor, bench.reactor))
    stub: Stub = request.getfixturevalue("stub")
    for gpu in load(FILE).gpus:
        if gpu.numa is not None:
            node = stub.root / f"sys/bus/pci/devices/{gpu.pci}/numa_node"
            node.parent.mkdir(parents=True)
            node.write_text(str(gpu.numa))
    stub.script.write_text(as_script(load(FILE).gpus))
    return Told(
        bench, partial(NvmlMonitor, bench.reactor, machine=Machine(stub.starter(bench.reactor)))
    )


@pytest.fixture
def source(told: Told) -> Iterator[Source]:
    made = told.source()
    yield made
    told.result(made.stop())


def test_it_reports_its_gpus_in_a_later_iteration(told: Told, source: Source) -> None:
    source.start()
    assert told.inventories == []
    told.has_inventory(1)
    (gpus,) = told.inventories
    assert gpus
    assert list(gpus) == sorted(gpus, key=lambda gpu: gpu.order)
    assert len({gpu.uuid for gpu in gpus}) == len(gpus)
    assert all(UUID.fullmatch(gpu.uuid) and gpu.product for gpu in gpus)
    assert told.drivers[0]
    assert told.faults == []


def test_it_reports_nothing_twice(told: Told, source: Source) -> None:
    source.start()
    told.has_inventory(1)
    told.bench.during(0.3)
    assert len(told.inventories) == 1


def test_a_released_source_reports_nothing_until_acquired(told: Told, source: Source) -> None:
    source.start()
    told.has_inventory(1)
    assert told.result(source.release()) is True
    assert told.faults == [GpuFaultKind.RELEASED]
    told.bench.during(0.2)
    assert len(told.inventories) == 1
    source.acquire()
    told.has_inventory(2)
    assert told.inventories[0] == told.inventories[1]
    assert told.faults == [GpuFaultKind.RELEASED]


def test_it_stops_and_is_silent(told: Told, source: Source) -> None:
    source.start()
    told.result(source.stop())
    told.bench.during(0.2)
    assert (told.inventories, told.faults) == ([], [])


def test_it_can_be_stopped_before_it_was_started_and_twice(told: Told, source: Source) -> None:
    told.result(source.stop())
    source.start()
    told.has_inventory(1)
    told.result(source.stop())
    told.result(source.stop())


def test_fake_gpus_and_the_stub_report_the_same_machine(bench: Bench, stub: Stub) -> None:
    fake_gpus = load(FILE).gpus
    stub.script.write_text(as_script(fake_gpus))
    start = stub.starter(bench.reactor)
    told = Told(bench, partial(NvmlMonitor, bench.reactor, machine=Machine(start)))
    source = told.source()
    source.start()
    told.has_inventory(1)
    told.result(source.stop())
    # The stub's machine has no /sys here, and its instances have their parent's capability.
    expected = tuple(
        evolve(gpu, numa=None, fake=False, reserved=0 if gpu.mig else gpu.reserved)
        for gpu in fake_gpus
    )
    assert told.inventories[0] == expected


@pytest.mark.parametrize("kind", ["fake", "stub"])
def test_a_machine_without_gpus_is_a_fault(bench: Bench, stub: Stub, kind: str) -> None:
    make: Make = partial(FakeMonitor, bench.reactor, parse_fake_gpus("gpu = []", "empty"))
    if kind == "stub":
        make = partial(NvmlMonitor, bench.reactor, machine=Machine(stub.starter(bench.reactor)))
    told = Told(bench, make)
    source = told.source()
    source.start()
    bench.until(lambda: told.faults)
    told.result(source.stop())
    assert (told.faults, told.inventories) == ([GpuFaultKind.NO_GPU], [])
