"""Without fake GPUs: no NVML, NVML that comes later, NVML that hangs."""

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN, tell
from tests.daemon.steps import admit, became
from tests.gpus.nvml.stub import A100, GPU_A, Stub

LIBRARY = "libnvidia-ml.so.1"


@pytest.fixture(scope="module")
def library(built: Callable[..., Path]) -> Path:
    """The stub of NVML's library."""
    return built() / LIBRARY


@pytest.fixture
def stub(node: Node) -> Stub:
    """A machine with one GPU and, until a test puts it there, no library."""
    (node.root / "lib").mkdir()
    made = Stub(node.root / "script", node.root / "lib", node.root)
    made.write(A100)
    node.configure(rest='[container]\nmethod = "nvidia-runtime"\n')
    return made


def start(node: Node, stub: Stub) -> Process:
    return node.start(fake_gpus=False, environment=stub.env)


def child_of(process: Process) -> int:
    """The process that reads NVML."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (child,) = map(int, children)
    return child


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a driver on this machine")
def test_without_nvml_it_stays_up_and_says_why_and_tries_again(
    node: Node, kubelet: StandInKubelet, stub: Stub, library: Path
) -> None:
    process = start(node, stub)
    process.ready()
    status = process.status(lambda status: "no-library" in status)
    assert "install the driver's libnvidia-ml1" in status
    process.said("no-library")
    assert kubelet.attempts == []
    seen = process.view()
    assert seen["pools"] == []
    assert seen["unknown"] == ["GPUs"]
    assert seen["probe"].startswith("no-library: ")
    (stub.library / LIBRARY).symlink_to(library)
    became(kubelet, RESOURCE, 10, 10)
    process.status(
        lambda status: (
            status == f"{RESOURCE}: registered, 0 held, 10 free on 1 GPU (10 allocatable)"
        )
    )
    assert admit(kubelet, "pod").envs["NVIDIA_VISIBLE_DEVICES"] == GPU_A
    process.end()


def test_nvml_that_hangs_stops_neither_its_start_nor_its_end(
    node: Node, kubelet: StandInKubelet, stub: Stub, library: Path
) -> None:
    (stub.library / LIBRARY).symlink_to(library)
    stub.write(A100, "hang nvmlInitWithFlags -1")
    process = start(node, stub)
    process.ready()
    process.status(lambda status: "waiting for GPUs" in status)
    assert process.view()["unknown"] == ["GPUs"]
    child = child_of(process)
    process.end()
    assert gone(child)
    assert kubelet.attempts == []


def test_nvml_that_begins_to_hang_delays_no_admission_and_no_end(
    node: Node, kubelet: StandInKubelet, stub: Stub, library: Path
) -> None:
    (stub.library / LIBRARY).symlink_to(library)
    process = start(node, stub)
    became(kubelet, RESOURCE, 10, 10)
    stub.write(A100, "hang nvmlDeviceGetName 0")
    for number in range(5):
        admit(kubelet, f"pod-{number}")
    tell(f"the longest call: {max(call.seconds for call in kubelet.calls) * 1000:.0f} ms")
    # One that waits for NVML takes the 10 s that a call of NVML is given.
    assert max(call.seconds for call in kubelet.calls) < 5
    child = child_of(process)
    process.end()
    assert gone(child)


def test_a_killed_probe_is_restarted_without_any_effect(
    node: Node, kubelet: StandInKubelet, stub: Stub, library: Path
) -> None:
    (stub.library / LIBRARY).symlink_to(library)
    process = start(node, stub)
    became(kubelet, RESOURCE, 10, 10)
    mark = process.log.mark
    os.kill(child_of(process), signal.SIGKILL)
    process.said("Restarting the NVML process", mark)
    process.said("1 GPU, driver 580.12", mark)
    assert len(kubelet.lists(RESOURCE)) == 1
    assert len(kubelet.attempts) == 1
    process.end(signal.SIGKILL)


def test_killing_the_daemon_ends_the_probe(
    node: Node, kubelet: StandInKubelet, stub: Stub, library: Path
) -> None:
    (stub.library / LIBRARY).symlink_to(library)
    process = start(node, stub)
    became(kubelet, RESOURCE, 10, 10)
    child = os.pidfd_open(child_of(process))
    process.end(signal.SIGKILL)
    # It dies with its parent: the descriptor becomes readable.
    assert select.select([child], [], [], WITHIN)[0]
    os.close(child)
