"""The child process with the real pynvml on the stub library: events and samples of the GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve

from sgpud.core.gpu.observations import EventKind, GpuEvent, Sample
from sgpud.gpus.nvml.messages import (
    CallsEnded,
    CallStarted,
    EventMessage,
    GpuErrorMessage,
    SamplesMessage,
)
from sgpud.gpus.nvml.probe.protocol import HOT_PLUGGED
from tests.gpus.nvml.stub import A100, CUT, GPU_A, GPU_B, GPU_C, MIG_1, MIG_2, T4, Probe, Stub

GIB = 2**30
OFTEN = ("--measure-every", "0.05")
SELDOM = ("--measure-every", "60", "--period", "60")
"""So that only what is asked for happens."""
BUSY = """\
  used 1073741824
  utilisation 37
  ecc 2
  recovery 0
"""


def event(total: int, index: int, number: int, kind: int = 8, gi: int = -1, ci: int = -1) -> str:
    return f"event {total} {index} {kind} {number} {gi} {ci}"


def events(probe: Probe, number: int = 1) -> list[GpuEvent]:
    probe.bench.until(lambda: len(probe.of(EventMessage)) >= number or probe.status)
    return [message.event for message in probe.of(EventMessage)]


def samples(probe: Probe) -> Sequence[Sample]:
    """The samples that come next."""
    known = len(probe.of(SamplesMessage))
    probe.bench.until(lambda: len(probe.of(SamplesMessage)) > known or probe.status)
    found: SamplesMessage = probe.of(SamplesMessage)[-1]
    return found.samples


def listening(probe: Probe) -> None:
    """Wait for the end of the first round: from then on every event counts."""
    probe.bench.until(lambda: probe.of(CallsEnded) or probe.status)


def test_an_xid_is_reported_when_it_occurs_not_at_the_next_reading(
    stub: Stub, probe: Probe
) -> None:
    stub.write(A100, T4)
    listening(probe.start(stub, *SELDOM))
    for total in range(1, 4):
        stub.write(A100, T4, event(total, 1, 79))
        assert events(probe, total)[-1] == GpuEvent(GPU_B, EventKind.XID, 79)
        # The next one is another event only after the moment in which it would be counted.
        probe.bench.during(0.25)


def test_an_ecc_error_and_an_event_of_an_instance_are_reported(stub: Stub, probe: Probe) -> None:
    stub.write(A100 + BUSY, CUT)
    listening(probe.start(stub, *SELDOM))
    stub.write(A100 + BUSY, CUT, event(1, 0, 0, kind=2), event(1, 1, 45, gi=7, ci=0))
    assert events(probe, 2) == [
        GpuEvent(GPU_A, EventKind.ECC),
        GpuEvent(GPU_C, EventKind.XID, 45, 7, 0),
    ]


def test_events_before_the_start_are_not_reported(stub: Stub, probe: Probe) -> None:
    stub.write(A100, event(5, 0, 31))
    listening(probe.start(stub, *SELDOM))
    stub.write(A100, event(6, 0, 31))
    assert events(probe) == [GpuEvent(GPU_A, EventKind.XID, 31)]
    probe.bench.during(0.4)
    assert len(probe.of(EventMessage)) == 1


def test_a_burst_is_a_few_lines_that_count_all_of_it(stub: Stub, probe: Probe) -> None:
    stub.write(A100, T4)
    listening(probe.start(stub, *SELDOM))
    stub.write(A100, T4, event(10_000, 0, 31), event(3, 1, 13))

    def counts() -> dict[int, int]:
        found: dict[int, int] = {}
        for message in probe.of(EventMessage):
            number = message.event.number
            found[number] = found.get(number, 0) + message.count
        return found

    probe.bench.until(lambda: counts() == {31: 10_000, 13: 3}, 30)
    assert len(probe.of(EventMessage)) < 200


def test_sampling_never_delays_an_event(stub: Stub, probe: Probe) -> None:
    stub.write(A100, T4, "hang nvmlDeviceGetMemoryInfo_v2 0")
    probe.start(stub, *OFTEN)
    stub.write(A100, T4)
    listening(probe)
    stub.write(A100, T4, "hang nvmlDeviceGetMemoryInfo_v2 0")
    probe.bench.until(
        lambda: isinstance(probe.said[-1], CallStarted) and probe.said[-1].gpu == GPU_A
    )
    probe.bench.during(0.1)
    stub.write(A100, T4, "hang nvmlDeviceGetMemoryInfo_v2 0", event(1, 0, 79))
    assert events(probe) == [GpuEvent(GPU_A, EventKind.XID, 79)]


def test_every_gpu_and_instance_is_sampled(stub: Stub, probe: Probe) -> None:
    used = CUT.replace(" 3 NVIDIA", " 3 NVIDIA", 1) + "  used 4096\n"
    stub.write(A100 + BUSY, T4, used)
    probe.start(stub, *OFTEN)
    assert samples(probe) == (
        Sample(GPU_A, GIB, 40 * GIB, 37, 0, 2),
        Sample(GPU_B, 0, 15 * GIB),
        Sample(GPU_C, 0, 40 * GIB),
        Sample(MIG_1, 0, 20937965568),
        Sample(MIG_2, 4096, 5100273664),
    )
    stub.write(A100 + BUSY.replace("1073741824", "0"), T4, CUT)
    probe.bench.until(lambda: probe.of(SamplesMessage)[-1].samples[0].used == 0)


@pytest.mark.parametrize("missing", ["nvmlDeviceGetFieldValues", "nvmlDeviceGetTotalEccErrors"])
def test_what_a_gpu_does_not_support_is_missing_in_a_sample(
    stub: Stub, probe: Probe, missing: str
) -> None:
    stub.write(A100 + BUSY, f"error {missing} 0 3")
    (sample,) = samples(probe.start(stub, *OFTEN))
    assert (sample.recovery, sample.ecc) in ((None, 2), (0, None))
    assert sample.error == ""


def test_an_old_driver_is_sampled_without_events(
    stub: Stub, probe: Probe, libraries: dict[str, Path]
) -> None:
    old = evolve(stub, library=libraries["old"])
    old.write(A100 + BUSY, T4)
    # Without version 2 the driver's own reserve counts as used.
    used = GIB + 671088640
    assert samples(probe.start(old, *OFTEN)) == (
        Sample(GPU_A, used, 40 * GIB, 37, None, 2),
        Sample(GPU_B, 0, 15 * GIB),
    )
    probe.bench.during(0.3)
    assert probe.of(EventMessage) == []
    assert probe.status == []


def test_the_counters_of_its_memory_are_sampled(stub: Stub, probe: Probe) -> None:
    stub.write(A100 + BUSY + "  ecc_total 7\n  remap 1 0\n", T4)
    probe.start(stub, *OFTEN)
    first, second = samples(probe)
    assert (first.ecc, first.ecc_total) == (2, 7)
    assert (first.remap_pending, first.remap_failed) == (True, False)
    assert (second.ecc_total, second.remap_pending) == (None, None)


def test_how_often_to_sample_can_be_changed(stub: Stub, probe: Probe) -> None:
    stub.write(A100)
    listening(probe.start(stub, *SELDOM))
    assert len(probe.of(SamplesMessage)) == 1
    assert probe.child
    probe.child.send(b"measure-every 0.05\n")
    probe.bench.until(lambda: len(probe.of(SamplesMessage)) > 5)


def test_a_changed_recovery_action_is_read_at_once(stub: Stub, probe: Probe) -> None:
    stub.write(A100 + BUSY)
    listening(probe.start(stub, *SELDOM))
    stub.write(A100 + BUSY.replace("recovery 0", "recovery 2"), event(1, 0, 154))
    (sample,) = samples(probe)
    assert sample.recovery == 2
    assert events(probe) == [GpuEvent(GPU_A, EventKind.XID, 154)]


def test_a_failing_sample_says_so_and_is_an_event_once(stub: Stub, probe: Probe) -> None:
    stub.write(A100, T4)
    listening(probe.start(stub, *OFTEN))
    broken = "error nvmlDeviceGetTotalEccErrors 0 999"
    stub.write(A100, T4, broken)
    (found,) = events(probe)
    assert (found.uuid, found.kind) == (GPU_A, EventKind.ERROR)
    assert "NVML error 999" in found.detail
    probe.bench.until(lambda: probe.of(SamplesMessage)[-1].samples[0].error)
    first, second = probe.of(SamplesMessage)[-1].samples
    assert "NVML error 999" in first.error
    assert second == Sample(GPU_B, 0, 15 * GIB)
    probe.bench.during(0.3)
    assert len(probe.of(EventMessage)) == 1
    stub.write(A100, T4)
    probe.bench.until(lambda: not probe.of(SamplesMessage)[-1].samples[0].error)
    stub.write(A100, T4, broken)
    assert len(events(probe, 2)) == 2
    assert probe.of(GpuErrorMessage) == []


def test_a_gpu_that_is_lost_fails_its_samples_too(stub: Stub, probe: Probe) -> None:
    stub.write(T4, CUT)
    listening(probe.start(stub, *OFTEN))
    stub.write(T4, CUT, "error nvmlDeviceGetHandleByIndex_v2 1 15")
    probe.bench.until(lambda: probe.of(SamplesMessage)[-1].samples[-1].error)
    found = probe.of(SamplesMessage)[-1].samples
    assert [sample.uuid for sample in found if "NVML error 15" in sample.error] == [
        GPU_C,
        MIG_1,
        MIG_2,
    ]
    (told,) = events(probe)
    assert told == GpuEvent(GPU_C, EventKind.ERROR, detail="GPU is lost (NVML error 15)")


def test_a_failed_event_set_is_recreated_without_the_gpu_that_broke_it(
    stub: Stub, probe: Probe
) -> None:
    stub.write(A100, T4)
    listening(probe.start(stub, "--measure-every", "60"))
    spoilt = "error nvmlEventSetWait_v2 0 15"
    stub.write(A100, T4, spoilt)
    assert [each.uuid for each in events(probe)] == [GPU_A]
    stub.write(A100, T4, spoilt, event(1, 1, 79))
    assert events(probe, 2)[-1] == GpuEvent(GPU_B, EventKind.XID, 79)
    # The GPU is tried again, after a while, and then heard of again.
    stub.write(A100, T4, event(1, 1, 79))
    probe.bench.during(2.5)
    stub.write(A100, T4, event(1, 1, 79), event(1, 0, 48))
    assert events(probe, 3)[-1] == GpuEvent(GPU_A, EventKind.XID, 48)


def test_a_failing_event_set_is_retried_with_back_off(stub: Stub, probe: Probe) -> None:
    stub.write(A100, T4)
    listening(probe.start(stub, *SELDOM))
    stub.write(A100, T4, "error nvmlEventSetWait_v2 -1 999")
    events(probe)
    said = len(probe.said)
    probe.bench.during(2)
    assert len(probe.said) - said < 40
    assert probe.status == []


@pytest.mark.parametrize(
    "missing",
    [
        "nvmlEventSetCreate -1 13",
        "nvmlDeviceRegisterEvents 0 3",
        "nvmlDeviceGetSupportedEventTypes 0 3",
        "nvmlEventSetWait_v2 0 13",
    ],
)
def test_a_gpu_without_events_is_not_an_error(stub: Stub, probe: Probe, missing: str) -> None:
    stub.write(A100, f"error {missing}")
    samples(probe.start(stub, *OFTEN))
    probe.bench.during(0.3)
    assert probe.of(EventMessage) == []
    assert probe.status == []


def test_new_mig_instances_are_reported_and_sampled(stub: Stub, probe: Probe) -> None:
    stub.write(T4, CUT)
    probe.start(stub, *OFTEN).inventory()
    one = CUT[: CUT.index(f"  instance {MIG_2}")]
    stub.write(T4, one)
    assert [gpu.uuid for gpu in probe.inventory(2).gpus] == [GPU_B, MIG_1]
    probe.bench.until(lambda: len(probe.of(SamplesMessage)[-1].samples) == 3)
    assert all(sample.error == "" for each in probe.of(SamplesMessage) for sample in each.samples)


def test_a_new_gpu_is_noticed_at_once(stub: Stub, probe: Probe) -> None:
    served = stub.root / "proc/driver/nvidia/gpus"
    served.mkdir(parents=True)
    stub.write(A100)
    listening(probe.start(stub, *SELDOM))
    (served / "0000:86:00.0").mkdir()
    probe.bench.until(lambda: probe.status)
    assert probe.status == [HOT_PLUGGED]


def test_a_long_burst_does_not_grow_the_child(stub: Stub, probe: Probe) -> None:
    stub.write(A100)
    listening(probe.start(stub, *SELDOM))
    assert probe.child
    pages = Path(f"/proc/{probe.child.pid}/statm")

    def resident() -> int:
        return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    before = resident()
    stub.write(A100, event(5_000, 0, 31))
    probe.bench.until(lambda: sum(each.count for each in probe.of(EventMessage)) == 5_000, 30)
    assert resident() - before < 2 << 20
