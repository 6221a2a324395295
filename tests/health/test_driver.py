"""Health by way of the real probe, on a stub of NVML's library: events, bursts, the way back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN, tell
from tests.daemon.steps import admit, became
from tests.gpus.nvml.stub import A100, CUT, GPU_A, GPU_B, GPU_C, MIG_1, MIG_2, T4, Stub

LIBRARY = "libnvidia-ml.so.1"
SETTINGS = """
[health]
hold_down = "1s"
[container]
method = "nvidia-runtime"
"""
ASKS_NOTHING = "  recovery 0\n"
TOTAL = 10_000


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as node:
        node.configure(sharing='measure_every = "1s"', rest=SETTINGS)
        yield node


@pytest.fixture
def kubelet(node: Node) -> Iterator[StandInKubelet]:
    with node.kubelet() as kubelet:
        yield kubelet


@pytest.fixture
def stub(node: Node, built: Callable[..., Path]) -> Stub:
    """A machine with two GPUs."""
    made = Stub(node.root / "script", built(), node.root)
    made.write(A100, T4)
    return made


def event(total: int, index: int, number: int, kind: int = 8, gi: int = -1, ci: int = -1) -> str:
    return f"event {total} {index} {kind} {number} {gi} {ci}"


def hears(stub: Stub, daemon: Process, *parts: str) -> str:
    """Have the last GPU tell an XID of no consequence until the daemon hears it; its last line.

    What the driver told before the GPUs were registered nobody hears.
    """
    for total in range(1, 31):
        line = event(total, len(parts) - 1, 14)
        stub.write(*parts, line)
        try:
            daemon.said("XID 14", timeout=1.0)
        except AssertionError:
            continue
        return line
    raise AssertionError("it heard nothing in 30 s")


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_an_xid_is_in_the_list_at_once(node: Node, kubelet: StandInKubelet, stub: Stub) -> None:
    daemon = node.start(fake_gpus=False, environment=stub.env)
    became(kubelet, RESOURCE, 20, 20)
    (share,) = admit(kubelet, "pod").ids[RESOURCE]
    heard = hears(stub, daemon, A100, T4)
    hit = (GPU_A, GPU_B).index(share.partition("::")[0])
    began = time.monotonic()
    stub.write(A100, T4, heard, event(1, hit, 79))
    became(kubelet, RESOURCE, 10, 20)
    listed = next(one for one in kubelet.lists(RESOURCE) if len(one.healthy) == 10)
    tell(f"from the driver's XID to the kubelet's list: {(listed.at - began) * 1000:.0f} ms")
    assert kubelet.devices(RESOURCE)[share].health == "Unhealthy"
    daemon.end()


def test_an_event_of_a_mig_instance_is_that_instance_s(
    node: Node, kubelet: StandInKubelet, stub: Stub
) -> None:
    stub.write(A100, CUT)
    daemon = node.start(fake_gpus=False, environment=stub.env)
    became(kubelet, RESOURCE, 30, 30)
    heard = hears(stub, daemon, A100, CUT)
    stub.write(A100, CUT, heard, event(1, 1, 95, gi=7, ci=0))
    became(kubelet, RESOURCE, 20, 30)
    healths = {one["uuid"]: one["health"] for one in daemon.view()["healths"]}
    assert healths == {
        GPU_A: "healthy",
        GPU_C: "healthy",
        MIG_1: "healthy",
        MIG_2: "unhealthy",
    }


def test_a_reset_that_the_driver_asks_for_is_seen_when_it_asks_no_more(
    node: Node, kubelet: StandInKubelet, stub: Stub
) -> None:
    stub.write(A100, T4 + ASKS_NOTHING)
    daemon = node.start(fake_gpus=False, environment=stub.env)
    became(kubelet, RESOURCE, 20, 20)
    stub.write(A100, T4 + "  recovery 1\n")
    became(kubelet, RESOURCE, 10, 20)
    daemon.said(f"GPU {GPU_B}: healthy -> unhealthy (recovery action 1")
    stub.write(A100, T4 + ASKS_NOTHING)
    became(kubelet, RESOURCE, 20, 20)
    daemon.said(f"GPU {GPU_B}: probation -> healthy")


def test_an_unreadable_gpu_is_unhealthy_and_recovers(
    node: Node, kubelet: StandInKubelet, stub: Stub
) -> None:
    daemon = node.start(fake_gpus=False, environment=stub.env)
    became(kubelet, RESOURCE, 20, 20)
    stub.write(A100, T4, "error nvmlDeviceGetUUID 1 15")
    became(kubelet, RESOURCE, 10, 20)
    daemon.said(f"GPU {GPU_B}: healthy -> unhealthy (lost")
    stub.write(A100, T4)
    became(kubelet, RESOURCE, 20, 20)


def test_a_hanging_call_makes_its_gpu_suspect_and_blocks_no_other(
    node: Node, kubelet: StandInKubelet, stub: Stub
) -> None:
    daemon = node.start(fake_gpus=False, environment=stub.env)
    became(kubelet, RESOURCE, 20, 20)
    stub.write(A100, T4, "hang nvmlDeviceGetMemoryInfo_v2 1")
    daemon.said(f"GPU {GPU_B}: healthy -> suspect (hang", timeout=30.0)
    became(kubelet, RESOURCE, 10, 20)
    (share,) = admit(kubelet, "pod").ids[RESOURCE]
    assert share.startswith(GPU_A)
    daemon.end()


def test_ten_thousand_xids_are_a_handful_of_lists_and_no_memory(
    node: Node, kubelet: StandInKubelet, stub: Stub
) -> None:
    daemon = node.start(fake_gpus=False, environment=stub.env)
    became(kubelet, RESOURCE, 20, 20)
    heard = hears(stub, daemon, A100, T4)

    def burst(number: int) -> int:
        """So many XIDs at once, and one of the other GPU after them; the memory then."""
        stub.write(A100, T4, heard, event(TOTAL * number, 0, 48))

        def counted() -> bool:
            return [GPU_A, 48, TOTAL * number] in daemon.view()["counters"]["xids"]

        end = time.monotonic() + WITHIN
        while not counted():
            assert time.monotonic() < end, daemon.view()["counters"]["xids"]
        return resident(daemon.pid)

    first = burst(1)
    became(kubelet, RESOURCE, 10, 20)
    lists = len(kubelet.lists(RESOURCE))
    fourth = max(burst(2), burst(3), burst(4))
    tell(f"{lists} lists, {(fourth - first) / 1024:.0f} KiB more after 30 000 more XIDs")
    assert lists <= 3
    assert len(kubelet.lists(RESOURCE)) == lists
    assert fourth - first < 1024 * 1024
    assert len([line for line in daemon.log.items if "requested by" not in line.message]) < 20
