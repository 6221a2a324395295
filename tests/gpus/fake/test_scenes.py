"""One contract for what happens to GPUs: a script of fake GPUs, and pynvml on the stub library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import pytest
from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from sgpud.config.schema.kinds import toml
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import GpuEvent, GpuProcess, GpuProcesses, Sample
from sgpud.gpus.fake.file import parse_fake_gpus
from sgpud.gpus.fake.monitor import FakeMonitor
from sgpud.gpus.fake.script import ScriptedEvent
from sgpud.gpus.fake.world import FakeState, after, event_of
from sgpud.gpus.nvml.faults import GpuFault
from sgpud.gpus.nvml.monitor import Machine, NvmlMonitor
from sgpud.gpus.nvml.run import ProbeTimeouts
from tests.gpus.nvml.stub import VERSIONS, Bench, Stub

GPUS = """\
[[gpu]]
product = "Tesla T4"
memory = "15GiB"
count = 2
[[gpu]]
product = "NVIDIA A100-SXM4-40GB"
memory = "40GiB"
mig = ["3g.20gb", "1g.5gb"]
"""
T4_0, T4_1, MIG_1, MIG_2 = (gpu.uuid for gpu in parse_fake_gpus(GPUS, "gpus").gpus)
CUT = parse_fake_gpus(GPUS, "gpus").gpus[2].physical
EVERYTHING = ("inventory", T4_0, T4_1, MIG_1, MIG_2)
QUICK = ProbeTimeouts(first=30, call=3, steady=0.2)
GAP = 0.3
"""Seconds between two steps of a scene."""
_BITS = {"xid": 8, "ecc": 2}


class Source(Protocol):
    def start(self) -> None: ...
    def stop(self) -> Deferred[None]: ...
    def set_measure_every(self, seconds: float) -> None: ...


@define
class Log:
    """All that a source has told, in order, but for the samples: the last of each GPU."""

    lines: list[tuple[object, ...]] = field(factory=list)
    samples: dict[str, Sample] = field(factory=dict)
    running: dict[str, GpuProcesses] = field(factory=dict)
    """The processes of each GPU, as they were told of last."""

    def inventory(self, gpus: Sequence[Gpu], driver: str) -> None:
        assert driver
        self.lines.append(("inventory", *(gpu.uuid for gpu in gpus)))

    def fault(self, fault: GpuFault) -> None:
        self.lines.append(("fault", fault.kind.value))

    def error(self, gpu: str, error: str) -> None:
        assert error
        self.lines.append(("gpu-error", gpu))

    def event(self, event: GpuEvent) -> None:
        self.lines.append((event.kind.value, event.uuid, event.number, event.gi, event.ci))

    def sampled(self, samples: Sequence[Sample]) -> None:
        self.samples = {sample.uuid: sample for sample in samples}

    def runs(self, running: Sequence[GpuProcesses]) -> None:
        self.running = {each.uuid: each for each in running}


@frozen
class Step:
    """Something that happens, and what is told of it."""

    happens: dict[str, Any]
    told: tuple[tuple[object, ...], ...] = ()
    sampled: Callable[[dict[str, Sample]], object] = lambda _: True
    runs: Callable[[dict[str, GpuProcesses]], object] = lambda _: True


def as_script(world: FakeState, counts: dict[str, int]) -> str:
    """What the stub library is to tell of this world."""
    lines = [VERSIONS]
    gone = "error nvmlInitWithFlags -1 9\nerror nvmlDeviceGetCount_v2 -1 9"
    lines += [gone] if world.gone else []
    physicals = dict.fromkeys(gpu.physical for gpu in world.gpus if world.plugged(gpu))
    for index, physical in enumerate(physicals):
        parts = [gpu for gpu in world.gpus if gpu.physical == physical and world.plugged(gpu)]
        gpu = parts[0]
        lines += [
            f"gpu {physical}",
            f"name {gpu.product.partition(' MIG ')[0]}",
            f"memory {gpu.memory} {gpu.reserved}",
            f"used {used(world, gpu)}",
            *([] if gpu.mig else processes(world, gpu)),
            f"utilisation {busy(world, gpu)}",
            f"recovery {world.recovery.get(gpu.index, 0)}",
            f"ecc {world.ecc.get(gpu.index, 0)}",
            "mig 1" if gpu.mig else "mig 0",
        ]
        for part in parts:
            if part.mig:
                place = f"{part.mig.gi} {part.mig.ci} {part.memory} 1 {part.product}"
                lines += [f"instance {part.uuid} {place}", f"used {used(world, part)}"]
                lines += processes(world, part)
        trouble = {
            "lost": f"error nvmlDeviceGetHandleByIndex_v2 {index} 15",
            "hang": f"hang nvmlDeviceGetName {index}",
        }
        lines.append(trouble.get(world.failed.get(gpu.index, ""), ""))
    return "\n".join([*lines, *(f"event {count} {line}" for line, count in counts.items())]) + "\n"


def used(world: FakeState, gpu: Gpu) -> int:
    mine = world.processes.get(gpu.uuid, {}).values()
    return world.used.get(gpu.uuid, 0) + sum(process.used or 0 for process in mine)


def busy(world: FakeState, gpu: Gpu) -> int:
    return sum(one.utilisation or 0 for one in world.processes.get(gpu.uuid, {}).values())


def processes(world: FakeState, gpu: Gpu) -> list[str]:
    return [
        f"process {one.pid} {one.used} {one.utilisation or 0} c"
        for one in world.processes.get(gpu.uuid, {}).values()
    ]


class Player:
    """Plays a scene to a monitor whose child is on the stub."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._world = FakeState(parse_fake_gpus(GPUS, "gpus").gpus)
        self._counts: dict[str, int] = {}
        self._write()

    def play(self, happening: ScriptedEvent) -> None:
        self._world = after(self._world, happening)
        event = event_of(self._world, happening)
        if event is not None:
            place = [-1 if part is None else part for part in (event.gi, event.ci)]
            bit = _BITS[event.kind.value]
            line = f"{happening.gpu} {bit} {event.number} {place[0]} {place[1]}"
            self._counts[line] = self._counts.get(line, 0) + 1
        self._write()

    def _write(self) -> None:
        new = self._stub.script.with_suffix(".new")
        new.write_text(as_script(self._world, self._counts))
        new.replace(self._stub.script)


def in_use(uuid: str, number: int) -> Callable[[dict[str, Sample]], object]:
    return lambda samples: uuid in samples and samples[uuid].used == number


def running(uuid: str, *processes: GpuProcess) -> Callable[[dict[str, GpuProcesses]], object]:
    return lambda running: uuid in running and running[uuid] == GpuProcesses(uuid, processes)


def whole(uuid: str, **expected: object) -> Callable[[dict[str, Sample]], object]:
    def holds(samples: dict[str, Sample]) -> bool:
        found = samples.get(uuid)
        return found is not None and all(
            getattr(found, name) == value for name, value in expected.items()
        )

    return holds


def absent(*uuids: str) -> Callable[[dict[str, Sample]], object]:
    return lambda samples: samples and not set(uuids) & samples.keys()


SCENES: dict[str, list[Step]] = {
    "an XID": [
        Step({"gpu": 0, "xid": 79}, (("xid", T4_0, 79, None, None),)),
        Step({"gpu": 1, "xid": 31}, (("xid", T4_1, 31, None, None),)),
    ],
    "an XID of an instance": [
        Step({"gpu": 2, "gi": 2, "ci": 0, "xid": 45}, (("xid", CUT, 45, 2, 0),)),
        Step({"gpu": 2, "gi": 1, "xid": 45}, (("xid", CUT, 45, 1, None),)),
        Step({"gpu": 2, "xid": 48}, (("xid", CUT, 48, None, None),)),
    ],
    "an ECC error": [
        Step({"gpu": 1, "ecc": True}, (("ecc", T4_1, 0, None, None),), whole(T4_1, ecc=1)),
    ],
    "a recovery action": [
        Step(
            {"gpu": 0, "recovery": 2},
            (("xid", T4_0, 154, None, None),),
            whole(T4_0, recovery=2, error=""),
        ),
        Step({"gpu": 0, "back": True}, (), whole(T4_0, recovery=0)),
    ],
    "a lost GPU": [
        Step(
            {"gpu": 1, "lost": True},
            (
                ("error", T4_1, 0, None, None),
                ("gpu-error", T4_1),
                ("inventory", T4_0, MIG_1, MIG_2),
            ),
            lambda samples: samples[T4_1].error and not samples[T4_0].error,
        ),
        Step({"gpu": 1, "back": True}, (EVERYTHING,), whole(T4_1, error="")),
    ],
    "a lost GPU with instances": [
        Step(
            {"gpu": 2, "lost": True},
            (("error", CUT, 0, None, None), ("gpu-error", CUT), ("inventory", T4_0, T4_1)),
            lambda samples: all(samples[uuid].error for uuid in (CUT, MIG_1, MIG_2)),
        ),
        Step({"gpu": 2, "back": True}, (EVERYTHING,)),
    ],
    "a GPU that hangs": [
        Step(
            {"gpu": 1, "hang": True},
            (
                ("hang", T4_1, 0, None, None),
                ("gpu-error", T4_1),
                ("inventory", T4_0, MIG_1, MIG_2),
            ),
            absent(T4_1),
        ),
    ],
    "a GPU that is unplugged": [
        Step(
            {"gpu": 2, "unplug": True},
            (("inventory", T4_0, T4_1),),
            absent(CUT, MIG_1, MIG_2),
        ),
        Step({"gpu": 2, "plug": True}, (EVERYTHING,), whole(CUT, error="")),
    ],
    "an instance that is destroyed": [
        Step(
            {"gpu": 2, "gi": 1, "unplug": True},
            (("inventory", T4_0, T4_1, MIG_2),),
            absent(MIG_1),
        ),
        Step({"gpu": 2, "gi": 1, "plug": True}, (EVERYTHING,)),
    ],
    "a driver that goes": [
        Step({"driver": "gone"}, (("fault", "no-driver"),)),
        Step({"driver": "back"}, (EVERYTHING,)),
    ],
    "memory in use": [
        Step({"gpu": 0, "used": "3GiB"}, (), in_use(T4_0, 3 << 30)),
        Step({"gpu": 2, "gi": 2, "ci": 0, "used": "1GiB"}, (), in_use(MIG_2, 1 << 30)),
        Step({"gpu": 0, "used": "0"}, (), in_use(T4_0, 0)),
    ],
    "processes": [
        Step(
            {"gpu": 0, "process": 12, "memory": "3GiB", "utilisation": 40},
            (),
            whole(T4_0, used=3 << 30, utilisation=40),
            running(T4_0, GpuProcess(12, 3 << 30, 40)),
        ),
        Step(
            {"gpu": 0, "process": 7, "memory": "1GiB"},
            (),
            in_use(T4_0, 4 << 30),
            running(T4_0, GpuProcess(7, 1 << 30, 0), GpuProcess(12, 3 << 30, 40)),
        ),
        Step({"gpu": 0, "ended": 12}, (), in_use(T4_0, 1 << 30)),
        Step(
            {"gpu": 2, "gi": 2, "process": 12, "memory": "1GiB"},
            (),
            in_use(MIG_2, 1 << 30),
            running(MIG_2, GpuProcess(12, 1 << 30)),
        ),
    ],
}


def happenings(scene: Sequence[Step]) -> str:
    tables = []
    for number, step in enumerate(scene, 1):
        keys = "\n".join(f"{key} = {toml(value)}" for key, value in step.happens.items())
        tables.append(f'[[event]]\nat = "{number * GAP:.1f}s"\n{keys}\n')
    return GPUS + "".join(tables)


@define
class Play:
    """A scene, a source for it, and what that tells."""

    scene: list[Step]
    log: Log
    source: Source
    step: Callable[[ScriptedEvent], None]
    """Lets a step happen, where it does not by itself."""


@pytest.fixture(params=sorted(SCENES))
def scene(request: pytest.FixtureRequest) -> list[Step]:
    return SCENES[request.param]


@pytest.fixture(params=["fake", "stub"])
def play(
    request: pytest.FixtureRequest, bench: Bench, stub: Stub, scene: list[Step]
) -> Iterator[Play]:
    log = Log()
    node = parse_fake_gpus(happenings(scene), "scene")
    made: Play
    if request.param == "fake":
        make: Callable[..., Source] = partial(FakeMonitor, bench.reactor, node)
        source = make(
            log.inventory,
            log.fault,
            log.error,
            on_event=log.event,
            on_samples=log.sampled,
            on_processes=log.runs,
        )
        made = Play(scene, log, source, lambda _: None)
    else:
        player = Player(stub)
        machine = Machine(stub.starter(bench.reactor))
        monitor = partial(NvmlMonitor, machine=machine, patience=QUICK)
        source = monitor(
            bench.reactor,
            log.inventory,
            log.fault,
            log.error,
            on_event=log.event,
            on_samples=log.sampled,
            on_processes=log.runs,
        )
        made = Play(scene, log, source, player.play)
    made.source.set_measure_every(0.05)
    yield made
    stopped: list[None] = []
    made.source.stop().addCallback(stopped.append)
    bench.until(lambda: stopped)


def test_fake_gpus_and_the_stub_report_a_scene_alike(play: Play, bench: Bench) -> None:
    expected: list[tuple[object, ...]] = [EVERYTHING]
    script = parse_fake_gpus(happenings(play.scene), "scene").script

    play.source.start()
    bench.until(lambda: play.log.lines == expected)
    # The sample that comes first is made after the events are listened to.
    bench.until(lambda: play.log.samples)
    for step, happening in zip(play.scene, script, strict=True):
        expected += step.told
        play.step(happening)
        bench.until(lambda: len(play.log.lines) >= len(expected))  # noqa: B023 - at once
        assert play.log.lines[: len(expected)] == expected
        bench.until(lambda: step.sampled(play.log.samples))  # noqa: B023 - at once
        bench.until(lambda: step.runs(play.log.running))  # noqa: B023 - at once
    bench.during(0.1)
    assert play.log.lines == expected
