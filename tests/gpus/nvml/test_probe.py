"""The child process with the real pynvml on the stub library: what it says, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from sgpud.core.gpu.gpu import Gpu, Mig, UnreadableGpu
from sgpud.gpus.nvml.faults import GpuFaultKind
from sgpud.gpus.nvml.messages import GpuErrorMessage, Inventory
from sgpud.gpus.nvml.probe.protocol import HOT_PLUGGED
from tests.gpus.nvml.stub import A100, CUT, GPU_A, GPU_B, GPU_C, MIG_1, MIG_2, T4, Probe, Stub
from tests.world import reports

GIB = 2**30


def test_two_gpus_with_every_fact(stub: Stub, probe: Probe) -> None:
    numa = stub.root / "sys/bus/pci/devices/0000:3b:00.0/numa_node"
    numa.parent.mkdir(parents=True)
    numa.write_text("1\n")
    none = stub.root / "sys/bus/pci/devices/0000:86:00.0/numa_node"
    none.parent.mkdir(parents=True)
    none.write_text("-1\n")
    stub.write(A100, T4)
    assert probe.start(stub).inventory() == Inventory(
        "580.12",
        "12.580.12",
        (
            Gpu(
                uuid=GPU_A,
                index=0,
                product="NVIDIA A100-SXM4-40GB",
                memory=40 * GIB,
                reserved=640 * 2**20,
                minor=1,
                pci="0000:3b:00.0",
                numa=1,
                compute=(8, 0),
            ),
            Gpu(
                uuid=GPU_B,
                index=1,
                product="Tesla T4",
                memory=15 * GIB,
                minor=0,
                pci="0000:86:00.0",
                compute=(7, 5),
            ),
        ),
    )


def test_a_gpu_in_mig_mode_stands_for_its_instances(stub: Stub, probe: Probe) -> None:
    stub.write(T4, CUT)
    gpus = probe.start(stub).inventory().gpus
    assert [gpu.uuid for gpu in gpus] == [GPU_B, MIG_1, MIG_2]
    assert gpus[1:] == (
        Gpu(
            uuid=MIG_1,
            index=1,
            product="NVIDIA A100-SXM4-40GB MIG 3g.20gb",
            memory=20937965568,
            minor=2,
            pci="0001:07:00.0",
            compute=(8, 0),
            mig=Mig(GPU_C, 1, 0),
        ),
        # The second instance's handle has no name of its own: the profile is worked out.
        Gpu(
            uuid=MIG_2,
            index=1,
            product="NVIDIA A100-SXM4-40GB MIG 1g.5gb",
            memory=5100273664,
            minor=2,
            pci="0001:07:00.0",
            compute=(8, 0),
            mig=Mig(GPU_C, 7, 0),
        ),
    )


def test_a_gpu_that_cannot_be_shared_is_listed_with_its_address_and_reason(
    stub: Stub, probe: Probe
) -> None:
    """One is lost from the start, so that NVML reports nothing of it; one is in MIG mode alone."""
    for address in ("0000:3b:00.0", "0000:86:00.0", "0001:07:00.0"):
        (stub.root / "proc/driver/nvidia/gpus" / address).mkdir(parents=True)
    empty = "\n".join(line for line in CUT.splitlines() if "instance" not in line) + "\n"
    stub.write(A100, T4, empty, "error nvmlDeviceGetHandleByIndex_v2 1 15")
    found = probe.start(stub).inventory()
    assert [gpu.uuid for gpu in found.gpus] == [GPU_A]
    lost, whole = found.unreadable
    assert (lost.index, lost.uuid, lost.pci) == (1, "", "0000:86:00.0")
    assert "NVML error 15" in lost.reason
    assert whole == UnreadableGpu(
        2, "MIG mode without instances: nothing to share", GPU_C, "0001:07:00.0"
    )
    stub.write(A100, T4, CUT)
    assert probe.inventory(2).unreadable == ()


def test_memory_that_may_not_be_read_is_unknown_and_the_instances_are_shared(
    stub: Stub, probe: Probe
) -> None:
    stub.write(T4, CUT, *reports.FORBIDDEN_MEMORY)
    found = probe.start(stub).inventory().gpus
    assert [(gpu.uuid, gpu.memory) for gpu in found[1:]] == [(MIG_1, None), (MIG_2, None)]
    assert found[2].product == "NVIDIA A100-SXM4-40GB MIG"


def test_a_gpu_that_is_lost_at_the_start_takes_nothing_from_the_others(
    stub: Stub, probe: Probe
) -> None:
    stub.write(A100, T4, CUT, reports.LOST)
    found = probe.start(stub).inventory()
    assert {gpu.uuid for gpu in found.gpus} == {GPU_A, MIG_1, MIG_2}
    assert [(gpu.index, "NVML error 15" in gpu.reason) for gpu in found.unreadable] == [(1, True)]


def test_an_instance_destroyed_during_a_read_is_not_an_error(stub: Stub, probe: Probe) -> None:
    stub.write(T4, CUT)
    probe.start(stub).inventory()
    stub.write(T4, CUT, "error nvmlDeviceGetGpuInstanceId 1 6")
    assert [gpu.uuid for gpu in probe.inventory(2).gpus] == [GPU_B]
    assert not probe.of(GpuErrorMessage)


def test_an_old_driver_only_lacks_features(
    stub: Stub, probe: Probe, libraries: dict[str, Path]
) -> None:
    old = evolve(stub, library=libraries["old"])
    old.write(A100, CUT)
    gpus = probe.start(old).inventory().gpus
    assert [gpu.uuid for gpu in gpus] == [GPU_A, GPU_C]
    assert [(gpu.memory, gpu.reserved, gpu.mig) for gpu in gpus] == [(40 * GIB, 0, None)] * 2


def test_only_changes_are_reported(stub: Stub, probe: Probe) -> None:
    stub.write(A100)
    probe.start(stub).inventory()
    turns = len(probe.said)
    probe.bench.until(lambda: len(probe.said) > turns + 12)
    assert len(probe.of(Inventory)) == 1
    stub.write(A100, T4)
    assert [gpu.uuid for gpu in probe.inventory(2).gpus] == [GPU_A, GPU_B]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (9, GpuFaultKind.NO_DRIVER),
        (18, GpuFaultKind.VERSION_MISMATCH),
        (4, GpuFaultKind.NO_PERMISSION),
        (6, GpuFaultKind.NO_GPU),
        (999, GpuFaultKind.UNKNOWN),
        (12345, GpuFaultKind.UNKNOWN),
    ],
)
def test_each_failure_of_nvml_to_start_is_distinguished(
    stub: Stub, probe: Probe, code: int, kind: GpuFaultKind
) -> None:
    stub.write(f"error nvmlInitWithFlags -1 {code}")
    fault = probe.start(stub).fault()
    assert fault.kind is kind
    assert f"NVML error {code}" in fault.detail
    assert "the kernel module nvidia is not loaded" in fault.detail
    assert "/dev/nvidiactl: missing" in fault.detail


def test_a_mismatch_names_the_module_and_the_library_that_are_loaded(
    stub: Stub, probe: Probe
) -> None:
    version = stub.root / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    loaded, upgraded = reports.REPLACED
    version.write_text(f"NVRM version: NVIDIA UNIX Open Kernel Module  {loaded}\nGCC\n")
    stub.write(f"nvml 12.{upgraded}", "error nvmlInitWithFlags -1 18")
    detail = probe.start(stub).fault().detail
    assert f"Kernel Module {loaded}" in detail
    assert f"NVML library 12.{upgraded}" in detail


def test_without_the_library_the_loader_says_why(stub: Stub, probe: Probe, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "libnvidia-ml.so.1").write_text("no library")
    fault = probe.start(evolve(stub, library=empty)).fault()
    assert fault.kind is GpuFaultKind.NO_LIBRARY
    assert "libnvidia-ml.so.1" in fault.detail


@pytest.mark.parametrize("script", ["", CUT.split("  instance")[0]])
def test_no_gpu_to_share_is_a_fault(stub: Stub, probe: Probe, script: str) -> None:
    stub.write(script)
    assert probe.start(stub).fault().kind is GpuFaultKind.NO_GPU


def test_a_driver_that_goes_away_is_a_fault(stub: Stub, probe: Probe) -> None:
    stub.write(A100)
    probe.start(stub).inventory()
    stub.write(A100, "error nvmlDeviceGetCount_v2 -1 999")
    assert probe.fault().kind is GpuFaultKind.UNKNOWN


@pytest.mark.parametrize(
    "call", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetUUID", "nvmlDeviceGetMemoryInfo_v2"]
)
def test_a_gpu_that_fails_does_not_affect_the_others(stub: Stub, probe: Probe, call: str) -> None:
    stub.write(A100, T4, f"error {call} 0 15")
    assert [gpu.uuid for gpu in probe.start(stub).inventory().gpus] == [GPU_B]
    (error,) = probe.of(GpuErrorMessage)
    assert error.gpu == (GPU_A if "Memory" in call else "0")
    assert error.error == "GPU is lost (NVML error 15)"
    stub.write(A100, T4)
    assert [gpu.uuid for gpu in probe.inventory(2).gpus] == [GPU_A, GPU_B]


def test_when_every_gpu_fails_it_is_a_fault(stub: Stub, probe: Probe) -> None:
    stub.write(A100, T4, "error nvmlDeviceGetMemoryInfo_v2 * 15")
    fault = probe.start(stub).fault()
    assert fault.kind is GpuFaultKind.UNKNOWN
    assert GPU_A in fault.detail
    assert GPU_B in fault.detail


@pytest.mark.parametrize(
    ("call", "field", "value"),
    [
        ("nvmlDeviceGetMinorNumber", "minor", None),
        ("nvmlDeviceGetPciInfo_v3", "pci", ""),
        ("nvmlDeviceGetName", "product", "unnamed GPU"),
        ("nvmlDeviceGetCudaComputeCapability", "compute", None),
        ("nvmlDeviceGetMemoryInfo_v2", "reserved", 0),
        ("nvmlDeviceGetMigMode", "mig", None),
    ],
)
@pytest.mark.parametrize("code", [3, 13])
def test_an_unsupported_fact_is_only_missing(
    stub: Stub, probe: Probe, call: str, field: str, value: object, code: int
) -> None:
    stub.write(A100, f"error {call} 0 {code}")
    (gpu,) = probe.start(stub).inventory().gpus
    assert getattr(gpu, field) == value
    assert gpu.memory == 40 * GIB


def test_the_memory_of_a_gpu_that_shares_the_machines_is_unknown(stub: Stub, probe: Probe) -> None:
    calls = ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2")
    stub.write(A100, *(f"error {call} 0 3" for call in calls))
    assert probe.start(stub).inventory().gpus[0].memory is None


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (r"\xff\xfeBad\x07Name", "\ufffd\ufffdBad\ufffdName"),
        ("", "unnamed GPU"),
        (r"\xe2\x82", "\ufffd"),
        (r"Tesla\x0a\x1b[31m", "Tesla\ufffd\ufffd[31m"),
        ("x" * 95, "x" * 95),
    ],
)
def test_a_strange_name_is_made_printable(stub: Stub, probe: Probe, name: str, shown: str) -> None:
    stub.write(A100.replace("NVIDIA A100-SXM4-40GB", name))
    assert probe.start(stub).inventory().gpus[0].product == shown


@pytest.mark.parametrize("uuid", [r"\xff\xff", "", "GPU-" + "a" * 80])
def test_a_gpu_with_a_strange_uuid_is_refused_and_the_others_stay(
    stub: Stub, probe: Probe, uuid: str
) -> None:
    stub.write(A100.replace(GPU_A, uuid), T4)
    found = probe.start(stub).inventory()
    assert [gpu.uuid for gpu in found.gpus] == [GPU_B]
    assert len(found.refused) == 1


def test_strange_versions_are_made_printable(stub: Stub, probe: Probe) -> None:
    stub.write(A100, r"driver 5\xff", "nvml ")
    found = probe.start(stub).inventory()
    assert (found.driver, found.nvml) == ("5\ufffd", "")


def test_what_the_library_prints_does_not_disturb_the_messages(stub: Stub, probe: Probe) -> None:
    stub.write(A100, "print nvmlDeviceGetUUID 0", "print nvmlInitWithFlags -1")
    assert probe.start(stub).inventory().gpus[0].uuid == GPU_A


def test_a_gpu_that_is_left_out_is_not_touched(stub: Stub, probe: Probe) -> None:
    stub.write(A100, T4, "crash nvmlDeviceGetHandleByIndex_v2 0")
    found = probe.start(stub, "--leave-out", GPU_A, "--leave-out", "0").inventory()
    assert [gpu.uuid for gpu in found.gpus] == [GPU_B]


def test_a_gpu_can_be_left_out_by_its_uuid_alone(stub: Stub, probe: Probe) -> None:
    stub.write(A100, T4, "crash nvmlDeviceGetMemoryInfo_v2 0")
    found = probe.start(stub, "--leave-out", GPU_A).inventory()
    assert [gpu.uuid for gpu in found.gpus] == [GPU_B]


def test_with_every_gpu_left_out_the_fault_is_the_hang(stub: Stub, probe: Probe) -> None:
    stub.write(A100)
    fault = probe.start(stub, "--leave-out", "0").fault()
    assert fault.kind is GpuFaultKind.HUNG


def test_a_crash_of_the_library_is_a_signal_without_a_message(stub: Stub, probe: Probe) -> None:
    stub.write(A100, "crash nvmlDeviceGetName 0")
    probe.start(stub)
    probe.bench.until(lambda: probe.status)
    assert probe.status == [-signal.SIGSEGV]


def test_it_asks_for_a_restart_when_gpus_are_added_or_removed(stub: Stub, probe: Probe) -> None:
    served = stub.root / "proc/driver/nvidia/gpus"
    (served / "0000:3b:00.0").mkdir(parents=True)
    stub.write(A100)
    probe.start(stub).inventory()
    (served / "0000:86:00.0").mkdir()
    probe.bench.until(lambda: probe.status)
    assert probe.status == [HOT_PLUGGED]


def _probe_process(stub: Stub, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "sgpud.gpus.nvml.probe.main", "--period", "0.05", *options]
    return subprocess.Popen(
        command,
        env={**stub.env, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _wait_for(process: subprocess.Popen[bytes], word: bytes) -> None:
    assert process.stdout
    assert any(word in line for line in process.stdout)


@pytest.mark.parametrize("hang", ["", "hang nvmlDeviceGetName 0"])
def test_it_ends_with_its_input_even_while_a_call_hangs(stub: Stub, hang: str) -> None:
    stub.write(A100, hang)
    with _probe_process(stub) as process:
        _wait_for(process, b'"read"')
        assert process.stdin
        process.stdin.close()
        assert process.wait(10) == 0


def test_it_exits_when_its_output_is_closed(stub: Stub) -> None:
    stub.write(A100)
    with _probe_process(stub) as process:
        _wait_for(process, b"inventory")
        assert process.stdout
        process.stdout.close()
        assert process.wait(10) == 0


def test_it_exits_at_once_under_another_parent(stub: Stub) -> None:
    stub.write(A100)
    with _probe_process(stub, "--parent", "1") as process:
        assert process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_to_the_group_leave_it_to_the_parent(stub: Stub, number: signal.Signals) -> None:
    stub.write(A100)
    with _probe_process(stub) as process:
        _wait_for(process, b"inventory")
        process.send_signal(number)
        _wait_for(process, b'"end"')
        assert process.poll() is None
        process.kill()


def test_it_stays_small(stub: Stub, probe: Probe, record_property: Any) -> None:
    stub.write(A100, T4, CUT)
    # A first one writes the byte code, which an installation has.
    with _probe_process(stub) as process:
        _wait_for(process, b"inventory")
        process.kill()
    probe.start(stub).inventory()
    assert probe.child
    status = Path(f"/proc/{probe.child.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    peak = int(line.split()[1]) / 1024
    record_property("probe_peak_rss_mib", f"{peak:.1f}")
    print(f"the probe's peak RSS: {peak:.1f} MiB")  # noqa: T201 - a measurement to read with -s
    assert peak <= 20
