"""The processes on the GPUs, with the real pynvml on the stub library."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve

from sgpud.core.gpu.observations import GpuProcess, GpuProcesses
from sgpud.gpus.nvml.messages import CallsEnded, ProcessesMessage, SamplesMessage
from tests.gpus.nvml.stub import A100, CUT, GPU_A, GPU_B, GPU_C, MIG_1, MIG_2, T4, Probe, Stub

GIB = 2**30
OFTEN = ("--measure-every", "0.05")


def running(probe: Probe) -> dict[str, GpuProcesses]:
    """What is told of processes after now."""
    known = len(probe.of(ProcessesMessage))
    # Two more: the first one may have begun before what the test has just changed.
    probe.bench.until(lambda: len(probe.of(ProcessesMessage)) > known + 1 or probe.status)
    found: ProcessesMessage = probe.of(ProcessesMessage)[-1]
    return {each.uuid: each for each in found.running}


def test_each_process_comes_with_its_memory_and_its_share_of_the_time(
    stub: Stub, probe: Probe
) -> None:
    stub.write(A100, f"process 12 {3 * GIB} 40 c", f"process 7 {GIB} 0 g", T4)
    assert running(probe.start(stub, *OFTEN)) == {
        GPU_A: GpuProcesses(GPU_A, (GpuProcess(7, GIB, 0), GpuProcess(12, 3 * GIB, 40))),
        GPU_B: GpuProcesses(GPU_B),
    }


def test_a_process_in_several_lists_counts_once(stub: Stub, probe: Probe) -> None:
    stub.write(T4, f"process 12 {3 * GIB} 40 cgm", f"process 13 {GIB} 5 m")
    found = running(probe.start(stub, *OFTEN))[GPU_B]
    assert found.processes == (GpuProcess(12, 3 * GIB, 40), GpuProcess(13, GIB, 5))


def test_more_processes_than_one_call_expects_all_come(stub: Stub, probe: Probe) -> None:
    stub.write(T4, *(f"process {pid} {pid} 1 c" for pid in range(1, 501)))
    found = running(probe.start(stub, *OFTEN))[GPU_B]
    assert found.processes == tuple(GpuProcess(pid, pid, 1) for pid in range(1, 501))


def test_on_mig_each_instance_has_its_processes_without_utilisation(
    stub: Stub, probe: Probe
) -> None:
    first, second = CUT.index(f"  instance {MIG_1}"), CUT.index(f"  instance {MIG_2}")
    text = CUT[:second] + f"  process 12 {GIB} 40 c\n" + CUT[second:] + f"  process 13 {GIB} 1 c"
    assert first < second
    stub.write(text)
    assert running(probe.start(stub, *OFTEN)) == {
        MIG_1: GpuProcesses(MIG_1, (GpuProcess(12, GIB),)),
        MIG_2: GpuProcesses(MIG_2, (GpuProcess(13, GIB),)),
    }


def test_what_nvml_does_not_report_is_missing(stub: Stub, probe: Probe) -> None:
    stub.write(
        A100,
        "process 12 -1 101 c",
        f"process 13 {GIB} 7 c",
        T4,
        "process 14 -1 -1 c",
    )
    found = running(probe.start(stub, *OFTEN))
    assert found[GPU_A].processes == (GpuProcess(12, None, None), GpuProcess(13, GIB, 7))
    assert found[GPU_B].processes == (GpuProcess(14, None, None),)


def test_an_error_of_a_process_list_is_not_a_fault_of_the_gpu(stub: Stub, probe: Probe) -> None:
    lists = ("Compute", "Graphics", "MPSCompute")
    refused = [f"error nvmlDeviceGet{kind}RunningProcesses_v3 0 4" for kind in lists]
    refused += [f"error nvmlDeviceGet{kind}RunningProcesses_v2 0 4" for kind in lists]
    fails = "error nvmlDeviceGetComputeRunningProcesses_v3 1 999"
    stub.write(A100, f"process 12 {GIB} 1 c", T4, f"process 13 {GIB} 1 c", *refused, fails)
    found = running(probe.start(stub, *OFTEN))
    assert found[GPU_A].processes == ()
    assert "does not report which processes" in found[GPU_A].problem
    assert "NVML error 999" in found[GPU_B].problem
    assert [sample.error for sample in probe.of(SamplesMessage)[-1].samples] == ["", ""]


def test_older_drivers_are_read_with_older_calls(
    stub: Stub, probe: Probe, libraries: dict[str, Path]
) -> None:
    old = evolve(stub, library=libraries["old"])
    old.write(T4, f"process 12 {GIB} 40 cg")
    found = running(probe.start(old, *OFTEN))[GPU_B]
    told, silent = (GpuProcess(12, GIB, 40),), "does not report which processes"
    # The oldest pynvml has no call for such a driver.
    assert found.processes == told or silent in found.problem


def test_a_failed_gpu_is_not_queried(stub: Stub, probe: Probe) -> None:
    stub.write(A100, T4, "error nvmlDeviceGetMemoryInfo_v2 0 15", f"process 12 {GIB} 1 c", CUT)
    assert set(running(probe.start(stub, *OFTEN))) == {GPU_B, MIG_1, MIG_2}
    assert GPU_C not in running(probe)


def test_the_child_measures_its_own_calls(stub: Stub, probe: Probe) -> None:
    stub.write(A100, T4)
    probe.start(stub, *OFTEN)
    probe.bench.until(lambda: len(probe.of(CallsEnded)) >= 4 or probe.status)
    counted: dict[str, int] = {}
    seconds = 0.0
    for end in probe.of(CallsEnded):
        for call, times, took in end.took:
            counted[call] = counted.get(call, 0) + times
            seconds += took
    assert counted["nvmlInit"] == 1
    assert counted["read"] >= 2
    assert counted["sample"] == counted["processes"] >= 4
    assert seconds > 0
