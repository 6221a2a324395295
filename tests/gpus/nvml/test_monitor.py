"""What the monitor does about a child that fails, hangs or dies: with a clock and scripted ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import EventKind, GpuEvent, GpuProcess, GpuProcesses, Sample
from sgpud.gpus.nvml.driver_files import CHECK_EVERY
from sgpud.gpus.nvml.faults import GpuFault, GpuFaultKind
from sgpud.gpus.nvml.monitor import RELEASE, Machine, NvmlMonitor
from sgpud.gpus.nvml.probe.protocol import HOT_PLUGGED, PERIOD
from sgpud.gpus.nvml.run import ProbeTimeouts
from tests.gpus.nvml.stub import GPU_A, GPU_B
from tests.world.reports import IMPOSSIBLE_BYTES

PATIENCE = ProbeTimeouts()


@define
class Scripted:
    """A child process that does what the test says."""

    options: Sequence[str]
    on_line: Callable[[bytes], None]
    on_end: Callable[[int | None], None]
    ended: bool = False
    told: list[bytes] = field(factory=list)

    @property
    def left_out(self) -> Sequence[str]:
        return self.options[: self.options.index("--measure-every")]

    def end(self) -> Deferred[bool]:
        self.ended = True
        gone = True
        return succeed(gone)

    def send(self, line: bytes) -> None:
        self.told.append(line)

    def say(self, message: str, **fields: object) -> None:
        self.on_line(json.dumps({"type": message, **fields}).encode())

    def begin(self, gpu: str | None = None, index: int | None = None) -> None:
        self.say("begin", call="read", gpu=gpu, index=index)

    def answer(self, *uuids: str) -> None:
        self.begin()
        gpus = [
            {
                "uuid": uuid,
                "index": index,
                "minor": index,
                "pci": "",
                "product": "T4",
                "memory": 1,
                "reserved": 0,
                "numa": None,
                "compute": None,
                "mig": None,
            }
            for index, uuid in enumerate(uuids)
        ]
        self.say("inventory", driver="580", nvml="12", gpus=gpus, unreadable=[])
        self.say("end")

    def fail(self, kind: str, status: int = 16) -> None:
        self.say("fault", kind=kind, detail="said so")
        self.on_end(status)


@define
class Starts:
    """Starts scripted children, or refuses to."""

    children: list[Scripted] = field(factory=list)
    refuse: bool = False

    def __call__(
        self,
        options: Sequence[str],
        on_line: Callable[[bytes], None],
        on_end: Callable[[int | None], None],
    ) -> Scripted:
        if self.refuse:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.children.append(Scripted(options, on_line, on_end))
        return self.children[-1]


class MonitorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.starts = Starts()
        self.inventories: list[list[str]] = []
        self.faults: list[GpuFaultKind] = []
        self.told: list[GpuFault] = []
        self.errors: list[tuple[str, str]] = []
        self.events: list[GpuEvent] = []
        self.samples: list[tuple[Sample, ...]] = []
        self.processes: list[tuple[GpuProcesses, ...]] = []
        self.signs = "none"
        self.monitor = NvmlMonitor(
            cast("Any", self.reactor),
            self._inventory,
            self._fault,
            lambda gpu, error: self.errors.append((gpu, error)),
            on_event=self.events.append,
            on_samples=self.samples.append,
            on_processes=self.processes.append,
            machine=Machine(self.starts, lambda: self.signs),
        )
        self.monitor.start()

    def _inventory(self, gpus: tuple[Gpu, ...], driver: str) -> None:
        assert driver == "580"
        self.inventories.append([gpu.uuid for gpu in gpus])

    def _fault(self, fault: GpuFault) -> None:
        self.told.append(fault)
        self.faults.append(fault.kind)

    @property
    def child(self) -> Scripted:
        return self.starts.children[-1]

    @property
    def number(self) -> int:
        return len(self.starts.children)

    def live(self, seconds: float) -> None:
        """Let time pass with a child that goes on as it should."""
        while seconds > 0:
            self.child.begin()
            self.child.say("end")
            self.reactor.advance(min(PERIOD, seconds))
            seconds -= PERIOD

    def test_each_inventory_is_reported(self) -> None:
        self.child.answer(GPU_A)
        self.child.answer(GPU_A, GPU_B)
        assert self.inventories == [[GPU_A], [GPU_A, GPU_B]]
        assert self.faults == []

    def test_a_fault_is_reported_once_and_retried_with_back_off(self) -> None:
        for pause in (1, 2, 4, 8, 16, 30, 30):
            self.child.fail("no-driver")
            number = self.number
            self.reactor.advance(pause - 0.01)
            assert self.number == number
            self.reactor.advance(0.02)
            assert self.number == number + 1
        assert self.faults == [GpuFaultKind.NO_DRIVER]
        assert self.told[0].detail == "said so"

    def test_another_fault_is_reported(self) -> None:
        self.child.fail("no-library")
        self.reactor.advance(1)
        self.child.fail("version-mismatch")
        assert self.faults == [GpuFaultKind.NO_LIBRARY, GpuFaultKind.VERSION_MISMATCH]

    def test_an_answer_ends_a_fault_and_the_back_off(self) -> None:
        for pause in (1, 2, 4):
            self.child.fail("no-driver")
            self.reactor.advance(pause)
        self.child.answer(GPU_A)
        self.live(PATIENCE.steady)
        self.child.fail("no-driver")
        assert self.faults == [GpuFaultKind.NO_DRIVER] * 2
        number = self.number
        self.reactor.advance(1)
        assert self.number == number + 1

    def test_an_isolated_crash_is_not_a_fault(self) -> None:
        self.child.answer(GPU_A)
        self.live(60)
        self.child.on_end(-11)
        self.reactor.advance(0)
        assert self.number == 2
        self.child.answer(GPU_A)
        assert self.faults == []

    def test_a_crash_after_which_the_next_child_does_not_answer_is_a_fault(self) -> None:
        self.child.answer(GPU_A)
        self.child.on_end(-11)
        self.reactor.advance(0)
        self.child.begin(GPU_A, 0)
        self.child.on_end(-11)
        assert self.faults == [GpuFaultKind.DIED]
        assert "SIGSEGV" in self.told[0].detail
        assert self.told[0].gpu == GPU_A

    def test_a_child_that_crashes_again_and_again_is_a_fault_with_back_off(self) -> None:
        for pause in (0, 1, 2, 4):
            self.child.answer(GPU_A)
            number = self.number
            self.child.on_end(1)
            self.reactor.advance(pause - 0.01 if pause else 0)
            assert self.number == number + (not pause)
            self.reactor.advance(0.02)
        assert self.faults == [GpuFaultKind.DIED] * 3

    def test_a_crash_before_any_answer_is_a_fault(self) -> None:
        self.child.on_end(1)
        assert self.faults == [GpuFaultKind.DIED]
        assert "exit status 1" in self.told[0].detail
        assert self.number == 1

    def test_a_process_that_cannot_be_started_is_a_fault_and_retried(self) -> None:
        self.child.fail("no-driver")
        self.starts.refuse = True
        self.reactor.advance(1)
        assert self.faults == [GpuFaultKind.NO_DRIVER, GpuFaultKind.DIED]
        assert "Resource temporarily unavailable" in self.told[-1].detail
        self.starts.refuse = False
        self.reactor.advance(2)
        self.child.answer(GPU_A)
        assert self.inventories == [[GPU_A]]

    def test_a_silent_child_is_hung(self) -> None:
        first = self.child
        self.reactor.advance(PATIENCE.first)
        assert first.ended
        assert self.faults == [GpuFaultKind.HUNG]

    def test_garbage_does_not_count_as_progress(self) -> None:
        for _ in range(int(PATIENCE.first)):
            self.child.on_line(b"garbage")
            self.reactor.advance(1)
        assert self.faults == [GpuFaultKind.HUNG]

    def test_garbage_between_messages_is_ignored(self) -> None:
        self.child.on_line(b"\xff\xfe")
        self.child.answer(GPU_A)
        self.child.on_line(b'{"type":"inventory"}')
        self.live(60)
        assert (self.inventories, self.faults) == ([[GPU_A]], [])

    def test_each_step_of_the_first_reading_has_its_own_time_limit(self) -> None:
        for index in range(8):
            self.child.begin(str(index), index)
            self.reactor.advance(PATIENCE.first - 1)
        self.child.answer(GPU_A)
        assert self.faults == []

    def test_a_gpu_that_hangs_is_left_out_and_the_others_stay(self) -> None:
        self.child.answer(GPU_A, GPU_B)
        first = self.child
        self.child.begin(GPU_B, 1)
        self.reactor.advance(PATIENCE.call - 0.1)
        assert self.number == 1
        self.reactor.advance(0.1)
        assert (first.ended, self.number) == (True, 2)
        assert self.child.left_out == ["--leave-out", GPU_B, "--leave-out", "1"]
        self.child.answer(GPU_A)
        assert self.faults == []
        assert [gpu for gpu, _ in self.errors] == [GPU_B]
        assert self.inventories[-1] == [GPU_A]

    def test_a_gpu_that_was_left_out_is_tried_again_later(self) -> None:
        self.child.answer(GPU_A, GPU_B)
        self.child.begin(GPU_B, 1)
        self.reactor.advance(PATIENCE.call)
        self.child.answer(GPU_A)
        second = self.child
        self.live(PATIENCE.suspect)
        assert second.ended
        assert (self.number, self.child.left_out) == (3, [])
        self.child.answer(GPU_A, GPU_B)
        assert self.inventories[-1] == [GPU_A, GPU_B]
        assert self.faults == []

    def test_gpus_that_were_left_out_are_read_again_when_the_gpus_change(self) -> None:
        self.child.answer(GPU_A, GPU_B)
        self.child.begin(GPU_A, 0)
        self.reactor.advance(PATIENCE.call)
        self.child.answer(GPU_B)
        self.child.on_end(HOT_PLUGGED)
        self.reactor.advance(1)
        assert self.child.left_out == []

    def test_a_hang_before_any_answer_is_a_fault_that_names_the_gpu(self) -> None:
        self.child.begin("1", 1)
        self.reactor.advance(PATIENCE.first)
        assert (self.faults, self.told[0].gpu) == ([GpuFaultKind.HUNG], "1")
        self.reactor.advance(1)
        assert self.child.left_out == ["--leave-out", "1"]

    def test_a_child_that_stops_between_readings_is_hung(self) -> None:
        self.child.answer(GPU_A)
        self.live(60)
        self.reactor.advance(PERIOD + PATIENCE.call)
        assert self.number == 2
        assert self.child.left_out == []

    def test_a_fault_whose_process_does_not_end_is_that_fault(self) -> None:
        self.child.say("fault", kind="no-driver", detail="d")
        self.reactor.advance(PATIENCE.first)
        assert self.starts.children[0].ended
        assert self.faults == [GpuFaultKind.NO_DRIVER]

    def test_hot_plugged_gpus_are_read_again_without_a_fault(self) -> None:
        self.child.answer(GPU_A)
        self.child.on_end(HOT_PLUGGED)
        self.reactor.advance(1)
        self.child.answer(GPU_A, GPU_B)
        assert self.inventories[-1] == [GPU_A, GPU_B]
        assert self.faults == []

    def test_a_gpu_that_fails_on_its_own_is_reported(self) -> None:
        self.child.say("gpu-error", gpu=GPU_B, error="GPU is lost")
        self.child.answer(GPU_A)
        assert self.errors == [(GPU_B, "GPU is lost")]
        assert self.faults == []

    def test_what_every_new_child_says_again_is_logged_once(self) -> None:
        with capturedLogs() as logged:
            for attempt in range(5):
                for number in range(8):
                    self.child.say("gpu-error", gpu=f"GPU-{number}", error="GPU is lost")
                self.child.fail("unknown")
                self.reactor.advance(60.0)
                assert len(self.starts.children) == attempt + 2
            assert len(self.errors) == 40
            self.child.answer("GPU-3")
            self.child.say("gpu-error", gpu="GPU-3", error="GPU is lost")
        lost = [event["gpu"] for event in logged if "gpu" in event and "error" in event]
        assert lost == [*(f"GPU-{number}" for number in range(8)), "GPU-3"]

    def test_a_gpu_with_an_invalid_uuid_is_ignored(self) -> None:
        self.child.answer("GPU-" + "a" * 99, GPU_A)
        assert self.inventories == [[GPU_A]]

    def test_release_ends_the_child_and_acquire_starts_one(self) -> None:
        self.child.answer(GPU_A)
        first = self.child
        assert self.successResultOf(self.monitor.release())
        assert first.ended
        assert self.faults == [GpuFaultKind.RELEASED]
        self.reactor.advance(60)
        assert self.number == 1
        self.monitor.acquire()
        self.child.answer(GPU_A)
        assert self.inventories == [[GPU_A], [GPU_A]]

    def test_a_release_ends_on_its_own(self) -> None:
        self.successResultOf(self.monitor.release())
        self.reactor.advance(RELEASE - 1)
        assert self.number == 1
        self.reactor.advance(1)
        assert self.number == 2

    def test_a_release_during_a_back_off_stays_one(self) -> None:
        self.child.fail("no-driver")
        self.successResultOf(self.monitor.release())
        self.reactor.advance(60)
        assert self.number == 1

    def test_acquire_does_not_disturb_a_child_that_runs(self) -> None:
        self.child.answer(GPU_A)
        self.monitor.acquire()
        assert self.number == 1
        assert not self.child.ended

    def test_acquire_cuts_a_back_off_short(self) -> None:
        self.child.fail("no-driver")
        self.monitor.acquire()
        assert self.number == 2
        self.reactor.advance(5)
        assert self.number == 2

    def test_nothing_happens_after_stop(self) -> None:
        self.child.answer(GPU_A)
        self.successResultOf(self.monitor.stop())
        assert self.child.ended
        self.child.answer(GPU_B)
        self.child.on_end(0)
        self.reactor.advance(3600)
        assert (self.number, self.inventories, self.faults) == (1, [[GPU_A]], [])
        assert self.reactor.getDelayedCalls() == []

    def test_stop_during_a_back_off_or_a_release_leaves_no_timer(self) -> None:
        self.child.fail("no-driver")
        self.successResultOf(self.monitor.stop())
        assert self.reactor.getDelayedCalls() == []
        self.successResultOf(self.monitor.release())
        self.successResultOf(self.monitor.stop())
        assert self.reactor.getDelayedCalls() == []

    def test_an_event_is_reported_at_once(self) -> None:
        self.child.answer(GPU_A)
        self.child.say("xid", gpu=GPU_A, number=79, gi=None, ci=None, count=1)
        self.child.say("xid", gpu=GPU_A, number=45, gi=1, ci=0, count=1)
        self.child.say("ecc", gpu=GPU_A, gi=None, ci=None, count=1)
        self.child.say("error", gpu=GPU_A, error="GPU is lost (NVML error 15)")
        assert self.events == [
            GpuEvent(GPU_A, EventKind.XID, 79),
            GpuEvent(GPU_A, EventKind.XID, 45, 1, 0),
            GpuEvent(GPU_A, EventKind.ECC),
            GpuEvent(GPU_A, EventKind.ERROR, detail="GPU is lost (NVML error 15)"),
        ]
        assert self.errors == []

    def test_a_burst_is_one_event_with_a_count(self) -> None:
        self.child.answer(GPU_A)
        self.child.say("xid", gpu=GPU_A, number=31, gi=None, ci=None, count=9999)
        assert self.events == [GpuEvent(GPU_A, EventKind.XID, 31, count=9999)]

    def test_events_do_not_count_as_progress(self) -> None:
        self.child.answer(GPU_A)
        self.child.begin(GPU_A, 0)
        for _ in range(int(PATIENCE.call)):
            self.child.say("xid", gpu=GPU_A, number=31, gi=None, ci=None, count=1)
            self.reactor.advance(1)
        assert self.number == 2

    def test_valid_samples_are_reported(self) -> None:
        self.child.answer(GPU_A)
        whole = {
            "used": 1,
            "total": 2,
            "utilisation": 3,
            "recovery": 0,
            "ecc": 0,
            "ecc_total": None,
            "remap": None,
            "error": "",
        }
        none = {**dict.fromkeys(whole), "error": "GPU is lost"}
        entries = [{"uuid": GPU_A, **whole}, {"uuid": GPU_B, **none}, {"uuid": "?", **whole}]
        self.child.say("samples", gpus=entries)
        assert self.samples == [
            (Sample(GPU_A, 1, 2, 3, 0, 0), Sample(GPU_B, error="GPU is lost")),
        ]

    def test_a_process_with_more_memory_than_its_gpu_has_none_that_is_known(self) -> None:
        self.child.answer("GPU-1", "GPU-2")
        rows = [[7, IMPOSSIBLE_BYTES, 5], [8, 1, 6]]
        gpus = [{"uuid": "GPU-1", "processes": rows, "error": ""}]
        self.child.say("processes", gpus=gpus)
        kept = (GpuProcess(7, None, 5), GpuProcess(8, 1, 6))
        assert self.processes == [(GpuProcesses("GPU-1", kept),)]

    def test_a_hang_is_an_event_of_the_gpu_that_hangs(self) -> None:
        self.child.answer(GPU_A, GPU_B)
        self.child.begin(GPU_B, 1)
        self.reactor.advance(PATIENCE.call)
        (event,) = self.events
        assert (event.uuid, event.kind) == (GPU_B, EventKind.HANG)
        assert "did not return" in event.detail

    def test_a_hang_at_a_gpu_without_a_known_uuid_is_not_an_event(self) -> None:
        self.child.begin("1", 1)
        self.reactor.advance(PATIENCE.first)
        assert self.events == []
        assert [gpu for gpu, _ in self.errors] == ["1"]

    def test_the_sampling_period_reaches_the_running_child_and_the_next(self) -> None:
        self.child.answer(GPU_A)
        self.monitor.set_measure_every(5.0)
        assert self.child.told == []
        self.monitor.set_measure_every(2.5)
        assert self.child.told == [b"measure-every 2.5\n"]
        self.child.on_end(HOT_PLUGGED)
        self.monitor.set_measure_every(7.0)
        self.reactor.advance(1)
        assert self.child.options == ["--measure-every", "7.0"]

    def test_a_driver_that_appears_is_tried_within_a_second(self) -> None:
        for pause in (1, 2, 4, 8, 16):
            self.child.fail("no-driver")
            self.reactor.advance(pause)
        self.child.fail("no-driver")
        number = self.number
        self.signs = "a driver"
        self.reactor.advance(CHECK_EVERY)
        assert self.number == number + 1
        self.child.answer(GPU_A)
        assert self.inventories == [[GPU_A]]

    def test_the_driver_is_not_checked_while_it_is_released(self) -> None:
        self.child.fail("no-driver")
        self.successResultOf(self.monitor.release())
        self.signs = "a driver"
        self.reactor.advance(60)
        assert self.number == 1
