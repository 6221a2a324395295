"""The real child process under the monitor: hangs, crashes, garbage, the end of the daemon."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from attrs import define, field
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

import sgpud
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import EventKind, GpuEvent
from sgpud.gpus.nvml.child import (
    MOST_LINES,
    PER,
    REPEAT_AFTER,
    Child,
    LineReceiver,
    Starter,
    StderrLog,
)
from sgpud.gpus.nvml.driver_files import DriverFiles, signs
from sgpud.gpus.nvml.faults import GpuFault, GpuFaultKind
from sgpud.gpus.nvml.monitor import Machine, NvmlMonitor
from sgpud.gpus.nvml.run import ProbeTimeouts
from sgpud.gpus.nvml.spawn import spawn, spawn_early
from tests.gpus.nvml.stub import A100, GPU_A, GPU_B, T4, Bench, Stub
from tests.surroundings import listening

QUICK = ProbeTimeouts(first=6, call=2, steady=0.2, suspect=1.0)


@define
class Rig:
    """A monitor with the real child on the stub, and all that it has told."""

    bench: Bench
    stub: Stub
    inventories: list[list[str]] = field(factory=list)
    faults: list[GpuFault] = field(factory=list)
    errors: list[str] = field(factory=list)
    events: list[GpuEvent] = field(factory=list)
    samples: list[object] = field(factory=list)
    children: list[Child] = field(factory=list)
    monitor: NvmlMonitor = field(init=False)

    def __attrs_post_init__(self) -> None:
        start = self.stub.starter(self.bench.reactor)

        def noted(*args: object) -> Child:
            self.children.append(start(*args))  # type: ignore[arg-type]
            return self.children[-1]

        self.monitor = NvmlMonitor(
            self.bench.reactor,
            self._inventory,
            self.faults.append,
            self._error,
            on_event=self.events.append,
            on_samples=self.samples.append,
            machine=Machine(noted, partial(signs, self.stub.root)),
            patience=QUICK,
        )

    def _inventory(self, gpus: tuple[Gpu, ...], driver: str) -> None:
        assert driver == "580.12"
        self.inventories.append([gpu.uuid for gpu in gpus])

    def _error(self, gpu: str, error: str) -> None:
        assert error
        self.errors.append(gpu)

    def stop(self) -> None:
        """Stop the monitor, and wait for that."""
        stopped: list[None] = []
        self.monitor.stop().addCallback(stopped.append)
        self.bench.until(lambda: stopped)


@pytest.fixture
def machine(bench: Bench, stub: Stub) -> Iterator[Rig]:
    made = Rig(bench, stub)
    yield made
    made.stop()


def test_a_hanging_gpu_is_abandoned_and_the_others_go_on(machine: Rig) -> None:
    machine.stub.write(A100, T4)
    machine.monitor.start()
    machine.bench.until(lambda: machine.inventories)
    machine.stub.write(A100, T4, "hang nvmlDeviceGetName 1")
    machine.bench.until(lambda: len(machine.inventories) == 2)
    assert machine.inventories == [[GPU_A, GPU_B], [GPU_A]]
    assert machine.errors == [GPU_B]
    assert [(event.uuid, event.kind) for event in machine.events] == [(GPU_B, EventKind.HANG)]
    assert machine.faults == []
    assert not Path(f"/proc/{machine.children[0].pid}").exists()
    machine.stub.write(A100, T4)
    machine.bench.until(lambda: len(machine.inventories) == 3)
    assert machine.inventories[2] == [GPU_A, GPU_B]
    assert machine.faults == []


def test_stopping_does_not_wait_for_a_hung_call(machine: Rig) -> None:
    machine.stub.write(A100, "hang nvmlInitWithFlags -1")
    machine.monitor.start()
    machine.bench.during(0.2)
    machine.stop()
    assert (machine.inventories, machine.faults) == ([], [])


def test_a_child_that_is_killed_is_replaced_without_a_fault(machine: Rig) -> None:
    machine.stub.write(A100)
    machine.monitor.start()
    machine.bench.until(lambda: machine.inventories)
    machine.bench.during(QUICK.steady)
    os.kill(machine.children[0].pid, signal.SIGKILL)
    machine.bench.until(lambda: len(machine.inventories) == 2)
    assert (machine.faults, len(machine.children)) == ([], 2)


def test_a_crash_in_the_library_is_a_fault_once_the_next_child_crashes_too(
    machine: Rig,
) -> None:
    machine.stub.write(A100)
    machine.monitor.start()
    machine.bench.until(lambda: machine.inventories)
    machine.stub.write(A100, "crash nvmlDeviceGetUUID 0")
    machine.bench.until(lambda: machine.faults)
    assert machine.faults[0].kind is GpuFaultKind.DIED
    assert "SIGSEGV" in machine.faults[0].detail
    assert len(machine.children) == 2


def test_a_driver_that_comes_later_is_found(machine: Rig) -> None:
    machine.stub.write(A100, "error nvmlInitWithFlags -1 9")
    machine.monitor.start()
    machine.bench.until(lambda: machine.faults)
    machine.stub.write(A100)
    machine.bench.until(lambda: machine.inventories)
    assert [fault.kind for fault in machine.faults] == [GpuFaultKind.NO_DRIVER]


def test_a_loaded_driver_is_found_without_waiting_for_the_next_retry(machine: Rig) -> None:
    machine.stub.write(A100, "error nvmlInitWithFlags -1 9")
    machine.monitor.start()
    # Tries come after 1, 2 and 4 seconds, then after 8.
    machine.bench.until(lambda: len(machine.children) == 4, 20)
    machine.stub.write(A100)
    machine.bench.during(1)
    version = machine.stub.root / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: 580.12\n")
    machine.bench.until(lambda: machine.inventories, 4)


def test_unloading_and_loading_a_driver_is_reported_once_each(machine: Rig) -> None:
    machine.stub.write(A100)
    machine.monitor.start()
    machine.bench.until(lambda: machine.inventories)
    machine.stub.write(A100, "error nvmlInitWithFlags -1 9", "error nvmlDeviceGetCount_v2 -1 9")
    machine.bench.until(lambda: machine.faults)
    machine.stub.write(A100)
    machine.bench.until(lambda: len(machine.inventories) == 2)
    assert [fault.kind for fault in machine.faults] == [GpuFaultKind.NO_DRIVER]


@pytest.mark.long
def test_a_hung_wait_for_events_ends_the_child(machine: Rig) -> None:
    machine.stub.write(A100)
    machine.monitor.start()
    machine.bench.until(lambda: machine.samples)
    machine.stub.write(A100, "hang nvmlEventSetWait_v2 0")
    machine.bench.until(lambda: len(machine.children) == 2, 20)
    assert (machine.faults, machine.errors) == ([], [])
    machine.stub.write(A100)
    machine.bench.until(lambda: len(machine.inventories) == 2)


def test_what_is_sent_to_a_child_that_has_exited_is_lost(machine: Rig) -> None:
    machine.stub.write(A100)
    machine.monitor.start()
    machine.bench.until(lambda: machine.inventories)
    child = machine.children[0]
    os.kill(child.pid, signal.SIGKILL)
    machine.bench.until(lambda: len(machine.children) == 2)
    child.send(b"measure-every 1\n")


def test_the_signs_of_a_driver_change_with_it(tmp_path: Path) -> None:
    assert signs(tmp_path) == DriverFiles()
    driver = tmp_path / "proc/driver/nvidia"
    (driver / "gpus/0000:3b:00.0").mkdir(parents=True)
    (driver / "version").write_bytes(b"580.12\xff")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert signs(tmp_path) == DriverFiles("580.12\ufffd", ("0000:3b:00.0",), control=True)


def test_the_child_ends_with_a_daemon_that_is_killed(stub: Stub) -> None:
    stub.write(A100, "hang nvmlDeviceGetName 0")
    daemon = (
        "import os, sys\n"
        "from twisted.internet import reactor\n"
        "from sgpud.gpus.nvml.child import start_child\n"
        # As with an editable installation: the package is on no path.
        "sys.path.remove(os.environ['SGPUD_FOLDER'])\n"
        "child = start_child(reactor, [], lambda line: os.write(1, line + b'\\n'), print)\n"
        "os.write(1, b'%d\\n' % child.pid)\n"
        "reactor.run()\n"
    )
    folder = str(Path(sgpud.__file__).parent.parent)
    path = os.pathsep.join([folder, *(each for each in sys.path if each != folder)])
    with subprocess.Popen(
        [sys.executable, "-c", daemon],
        env={**stub.env, "PYTHONPATH": path, "SGPUD_FOLDER": folder},
        cwd="/",
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        watched = os.pidfd_open(pid)
        assert any(b'"read"' in line for line in process.stdout)
        process.kill()
    # A pidfd can be read from once its process has ended.
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    try:
        assert poll.poll(10_000)
    finally:
        os.close(watched)


def test_the_last_lines_of_a_child_are_logged(bench: Bench) -> None:
    script = "echo one >&2; printf 'half a line' >&2; exit 3"
    pipe = subprocess.PIPE
    with capturedLogs() as logged:
        process = subprocess.Popen(["sh", "-c", script], stdin=pipe, stdout=pipe, stderr=pipe)
        said: list[bytes] = []
        ended: list[int | None] = []
        child = Child(bench.reactor, process, said.append, ended.append, StderrLog(bench.reactor))
        bench.until(lambda: ended)
    assert child.pid == process.pid
    assert (said, ended) == ([], [3])
    assert [event["line"] for event in logged] == ["one"]


class Pipe:
    """Lines on one end of a pipe."""

    def __init__(self, bench: Bench, longest: int) -> None:
        self.out, self.end = os.pipe()
        self.seen: list[bytes] = []
        self.ended: list[bool] = []
        self.lines = LineReceiver(
            bench.reactor, self.out, longest, self.seen.append, lambda: self.ended.append(True)
        )


@pytest.fixture
def pipe(bench: Bench) -> Iterator[Pipe]:
    made = Pipe(bench, 10)
    yield made
    made.lines.close()
    os.close(made.out)
    if made.end >= 0:
        os.close(made.end)


def test_lines_are_whole_and_long_ones_truncated(bench: Bench, pipe: Pipe) -> None:
    os.write(pipe.end, b"one\ntw")
    bench.until(lambda: pipe.seen)
    os.write(pipe.end, b"o\n\n0123456789abc\nlast")
    bench.until(lambda: len(pipe.seen) == 4)
    assert pipe.seen == [b"one", b"two", b"", b"0123456789"]


def test_an_incomplete_line_is_dropped(bench: Bench, pipe: Pipe) -> None:
    os.write(pipe.end, b"whole\nhalf")
    os.close(pipe.end)
    pipe.end = -1
    bench.until(lambda: pipe.ended)
    assert pipe.seen == [b"whole"]


def test_a_reader_closed_by_a_callback_passes_on_no_more(bench: Bench, pipe: Pipe) -> None:
    seen: list[bytes] = []
    pipe.lines.close()

    def only_one(line: bytes) -> None:
        seen.append(line)
        lines.close()

    lines = LineReceiver(bench.reactor, pipe.out, 10, only_one, lambda: seen.append(b"end"))
    os.write(pipe.end, b"one\ntwo\n")
    bench.until(lambda: seen)
    os.write(pipe.end, b"three\n")
    bench.during(0.1)
    assert seen == [b"one"]


# What it writes to standard error. ---------------------------------------------------------------


def test_a_library_that_writes_without_end_is_logged_with_a_count() -> None:
    clock = Clock()
    log = StderrLog(clock)
    with listening() as said:
        for number in range(700):
            log(f"NVML: warning {number}")
            clock.advance(20 / 700)
        assert len(said.about("NVML: warning")) == MOST_LINES
        clock.advance(PER)
    assert said.about(f"left out {700 - MOST_LINES} lines")
    with listening() as said:
        log("NVML: warning 700")
    assert said.about("warning 700")


def test_the_same_line_of_each_new_process_is_logged_once_an_hour() -> None:
    clock = Clock()
    log = StderrLog(clock)
    with listening() as said:
        for _ in range(8):
            log("cannot open /dev/nvidiactl")
            clock.advance(30.0)
        clock.advance(PER)
        assert len(said.about("cannot open")) == 1
        assert sum(line.count("left out") for line in said.lines) >= 1
        clock.advance(REPEAT_AFTER)
        log("cannot open /dev/nvidiactl")
    assert len(said.about("cannot open")) == 2


def test_a_child_started_early_gets_its_options(bench: Bench, stub: Stub) -> None:
    stub.write(A100)
    first = spawn(["--period", "60", "--root", str(stub.root)], stub.env)
    start = Starter(bench.reactor, first)
    lines: list[bytes] = []
    child = start(["--measure-every", "0.05"], lines.append, lambda _: None)
    assert child.pid == first.pid
    # With the default there would be one sample each 5 s.
    bench.until(lambda: sum(b'"samples"' in line for line in lines) >= 3, 4.0)
    ended: list[bool] = []
    child.end().addCallback(ended.append)
    bench.until(lambda: ended)


@pytest.mark.slow
def test_an_early_child_that_cannot_start_is_left_to_the_monitor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert spawn_early() is None
