"""A script in a file of fake GPUs: each problem with its line, and what its events do in time."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from sgpud.config.problems import ConfigError
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import EventKind, GpuEvent, Sample
from sgpud.gpus.fake.file import parse_fake_gpus
from sgpud.gpus.fake.monitor import FakeMonitor
from sgpud.gpus.fake.script import MOST_EVENTS, ScriptedEvent
from sgpud.gpus.nvml.faults import GpuFault, GpuFaultKind
from sgpud.gpus.nvml.probe.protocol import MEASURE_EVERY

GPUS = """\
[[gpu]]
product = "Tesla T4"
memory = "15GiB"
reserved = "1GiB"
[[gpu]]
product = "NVIDIA A100-SXM4-40GB"
memory = "40GiB"
mig = ["3g.20gb", "1g.5gb"]
"""
FIRST = GPUS.count("\n") + 2
"""The line below the first [[event]]."""


def scripted(*events: str) -> str:
    return GPUS + "".join(f"[[event]]\n{event}\n" for event in events)


def test_events_are_sorted_by_time() -> None:
    text = scripted(
        'at = "2m"\ndriver = "gone"',
        'at = "500ms"\ngpu = 1\ngi = 1\nci = 0\nxid = 45',
        'at = "1.5s"\ngpu = 0\nused = "14GiB"',
        'at = "3s"\ngpu = 1\ngi = 2\nended = 4711',
        'at = "2s"\ngpu = 0\nprocess = 4711\nmemory = "2GiB"\nutilisation = 40',
        'at = "0"\ngpu = 0\nlost = true',
    )
    assert parse_fake_gpus(text, "sim.toml").script == (
        ScriptedEvent(0.0, "lost", 0),
        ScriptedEvent(0.5, "xid", 1, 1, 0, 45),
        ScriptedEvent(1.5, "used", 0, number=14 << 30),
        ScriptedEvent(2.0, "process", 0, number=4711, memory=2 << 30, utilisation=40),
        ScriptedEvent(3.0, "ended", 1, 2, number=4711),
        ScriptedEvent(120.0, "driver", state="gone"),
    )


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ("gpu = 0\nxid = 79", "-1: event.at: is missing; expected a time"),
        ("at = 5\ngpu = 0\nxid = 79", "0: event.at: is the number 5; expected a time"),
        ('at = "5"\ngpu = 0\nxid = 79', "0: event.at: "),
        ('at = "-5s"\ngpu = 0\nxid = 79', "0: event.at: "),
        ('at = "5s"\ngpu = 0', "0: event.at: each event needs one of xid, ecc"),
        ('at = "5s"\ngpu = 0\nxid = 79\nlost = true', "3: event.lost: each event needs one of"),
        ('at = "5s"\ngpu = 0\nxid = -1', "2: event.xid: "),
        ('at = "5s"\ngpu = 0\nxid = 0', "2: event.xid: "),
        ('at = "5s"\ngpu = 0\nxid = true', "2: event.xid: "),
        ('at = "5s"\ngpu = 0\nlost = false', "2: event.lost: cannot be false"),
        ('at = "5s"\ngpu = 0\nlots = true', "2: event.lots: is an unknown key"),
        ('at = "5s"\nxid = 79', "1: event.xid: needs gpu, e.g."),
        ('at = "5s"\ngpu = 2\nxid = 79', "1: event.gpu: there are 2 GPUs, counted from 0"),
        ('at = "5s"\ngpu = "0"\nxid = 79', "1: event.gpu: "),
        ('at = "5s"\ngpu = 0\ndriver = "gone"', "1: event.gpu: does not apply"),
        ('at = "5s"\ndriver = "away"', "1: event.driver: "),
        ('at = "5s"\ngpu = 0\ngi = 1\nxid = 79', "2: event.gi: GPU 0 has no MIG instances"),
        ('at = "5s"\ngpu = 1\ngi = 3\nxid = 79', "2: event.gi: GPU 1 has the instances 1, 2"),
        ('at = "5s"\ngpu = 1\ngi = 1\nci = 1\nxid = 7', "2: event.gi: GPU 1 has the instances"),
        ('at = "5s"\ngpu = 1\nci = 0\nxid = 79', "2: event.ci: needs gi"),
        ('at = "5s"\ngpu = 1\ngi = 1\nlost = true', "2: event.gi: lost applies to a whole"),
        ('at = "5s"\ngpu = 0\nrecovery = 8', "2: event.recovery: "),
        ('at = "5s"\ngpu = 0\nused = 5', "2: event.used: "),
        ('at = "5s"\ngpu = 0\nused = "5GB"', "2: event.used: "),
        ('at = "5s"\ngpu = 0\nused = "15GiB"', "2: event.used: is more than the"),
        ('at = "5s"\ngpu = 1\nused = "5GiB"', "2: event.used: needs gi"),
        ('at = "5s"\ngpu = 1\ngi = 2\nused = "6GiB"', "3: event.used: is more than the"),
        ('at = "5s"\ngpu = 0\nprocess = 0', "2: event.process: "),
        ('at = "5s"\ngpu = 0\nprocess = 1\nmemory = "15GiB"', "3: event.memory: is more than"),
        ('at = "5s"\ngpu = 0\nprocess = 1\nutilisation = 101', "3: event.utilisation: "),
        ('at = "5s"\ngpu = 0\nxid = 79\nmemory = "1GiB"', "3: event.memory: needs process"),
        ('at = "5s"\ngpu = 0\nended = 1\nutilisation = 1', "3: event.utilisation: needs process"),
        ('at = "5s"\ngpu = 1\nprocess = 1', "2: event.process: needs gi"),
        (
            'at = "5s"\ngpu = 1\ngi = 1\nprocess = 1\nutilisation = 1',
            "4: event.utilisation: is not reported for MIG",
        ),
        ('at = "5s"\ngpu = 0\nprocess = 1\nended = 1', "3: event.ended: each event needs one of"),
    ],
)
def test_each_problem_names_file_line_and_key(event: str, text: str) -> None:
    line, _, rest = text.partition(": ")
    with pytest.raises(ConfigError) as caught:
        parse_fake_gpus(scripted(event), "sim.toml")
    (problem,) = str(caught.value).splitlines()
    assert problem.startswith(f"sim.toml:{FIRST + int(line)}: {rest}")


def test_too_many_events_are_a_problem() -> None:
    events = ['at = "5s"\ngpu = 0\nxid = 79'] * (MOST_EVENTS + 1)
    with pytest.raises(ConfigError, match=f"at most {MOST_EVENTS} are allowed"):
        parse_fake_gpus(scripted(*events), "sim.toml")


class PlayedTests(SynchronousTestCase):
    def play(self, *events: str) -> None:
        self.reactor = MemoryReactorClock()
        self.told: list[object] = []
        self.samples: list[tuple[Sample, ...]] = []
        node = parse_fake_gpus(scripted(*events), "sim.toml")
        self.t4 = node.gpus[0].uuid
        self.monitor = FakeMonitor(
            cast("Any", self.reactor),
            node,
            self._inventory,
            self._fault,
            lambda gpu, _: self.told.append(("error", gpu)),
            on_event=self.told.append,
            on_samples=self.samples.append,
        )
        self.monitor.start()
        self.reactor.advance(0)

    def _inventory(self, gpus: tuple[Gpu, ...], driver: str) -> None:
        assert driver
        self.told.append(len(gpus))

    def _fault(self, fault: GpuFault) -> None:
        self.told.append(fault.kind)

    def test_an_event_happens_at_its_time(self) -> None:
        self.play('at = "5s"\ngpu = 0\nxid = 79')
        self.reactor.advance(4.9)
        assert self.told == [3]
        self.reactor.advance(0.1)
        assert self.told == [3, GpuEvent(self.t4, EventKind.XID, 79)]

    def test_what_happens_at_once_is_in_the_first_report(self) -> None:
        self.play('at = "0"\ngpu = 1\nunplug = true', 'at = "0"\ngpu = 0\nxid = 31')
        assert self.told == [1, GpuEvent(self.t4, EventKind.XID, 31)]

    def test_samples_come_with_the_first_report_and_each_period(self) -> None:
        self.play()
        assert len(self.samples) == 1
        self.reactor.advance(MEASURE_EVERY)
        assert len(self.samples) == 2
        self.monitor.set_measure_every(1.0)
        self.reactor.pump([1.0] * 3)
        assert len(self.samples) == 5

    def test_nothing_is_reported_while_the_gpus_are_released(self) -> None:
        self.play('at = "5s"\ngpu = 0\nxid = 79', 'at = "6s"\ngpu = 1\nunplug = true')
        self.successResultOf(self.monitor.release())
        self.reactor.advance(10)
        assert self.told == [3, GpuFaultKind.RELEASED]
        assert len(self.samples) == 1
        self.monitor.acquire()
        self.reactor.advance(0)
        assert self.told == [3, GpuFaultKind.RELEASED, 1]
        assert len(self.samples) == 2

    def test_a_gpu_that_is_gone_reports_nothing(self) -> None:
        self.play(
            'at = "1s"\ngpu = 0\nunplug = true',
            'at = "2s"\ngpu = 0\nxid = 79',
            'at = "3s"\ndriver = "gone"',
            'at = "4s"\ngpu = 1\nxid = 79',
        )
        self.reactor.pump([1.0] * 10)
        assert self.told == [3, 2, GpuFaultKind.NO_DRIVER]
        # One at the start; when the next one is due, there is no driver.
        assert len(self.samples) == 1

    def test_when_every_gpu_fails_there_is_nothing_to_read(self) -> None:
        self.play('at = "1s"\ngpu = 0\nlost = true', 'at = "1s"\ngpu = 1\nhang = true')
        self.reactor.advance(1)
        kinds = [each.kind for each in self.told if isinstance(each, GpuEvent)]
        assert kinds == [EventKind.ERROR, EventKind.HANG]
        assert self.told[-1] is GpuFaultKind.UNKNOWN

    def test_nothing_happens_after_stop(self) -> None:
        self.play('at = "5s"\ngpu = 0\nxid = 79')
        self.successResultOf(self.monitor.stop())
        self.reactor.advance(10)
        assert (self.told, len(self.samples)) == ([3], 1)
        assert self.reactor.getDelayedCalls() == []
