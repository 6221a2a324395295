"""Memory limits: what a container waits for before it starts, and the size of the helper."""

import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from benchmarks.machine import children, memory
from benchmarks.node import Node
from benchmarks.report import NotMeasuredError, Number, Target, median, percentile
from benchmarks.resources import stub_library
from sgpud.composition.caps import HELPER
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import CapTerms
from sgpud.core.limits.settings import MemoryLimits
from sgpud.core.sharing.share_id import memory_stem, share_id
from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.kubelet.cgroups import pod_cgroup
from sgpud.kubelet.checkpoint import read_pod
from sgpud.kubelet.directory import CHECKPOINT
from sgpud.limits.client import HelperClient
from sgpud.limits.keeper import CapKeeper, CapOrders, PodReader
from sgpud.limits.spawn import command
from sgpud.testing.kubelet.checkpoint import PodDevices, Slot, encode

PODS = 100
STARTED_WITHIN = 20.0
"""Milliseconds that PreStartContainer takes with a helper that is well."""
LARGEST = 18.0
"""MiB of each of the helper's processes."""
POOL = "deepomatic.com/shared-gpu-memory"
UUID = "GPU-00000000-1111-2222-3333-000000000000"
WITHIN = 20.0


class _Reactor(Clock):
    """A clock that nobody advances, and calls from threads that nobody waits for."""

    getThreadPool: Any = None
    addReader: Any = None
    removeReader: Any = None
    stop: Any = None

    def callFromThread(self, function: Callable[..., Any], /, *args: object) -> None:
        """It is told."""


def limits(*, quick: bool) -> Iterator[Number]:
    """Starts of containers, one after the other, on a node with 100 pods."""
    with ExitStack() as stack:
        node = stack.enter_context(Node(1, 8))
        environment = stub_library(node)
        script = Path(environment["STUB_NVML"])
        script.write_text(f"{script.read_text()}limits misc\n")
        root = stack.enter_context(tempfile.TemporaryDirectory(prefix="sgpud-bench-"))
        run = Path(root, "run")
        uids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(PODS)]
        cgroups = Path(root, "sys/fs/cgroup")
        for uid in uids:
            folder = cgroups / f"kubepods/pod{uid}"
            folder.mkdir(parents=True)
            (folder / "cgroup.controllers").write_text("misc\n")
        Path(root, CHECKPOINT).write_bytes(_checkpoint(uids))
        words = command(str(run), str(Path(root, "state")), str(cgroups))
        helper = stack.enter_context(subprocess.Popen(words, env=environment))
        stack.callback(helper.kill)
        _await(run / HELPER)
        holders = partial(read_pod, Path(root, CHECKPOINT))
        pods = PodReader(tuple, holders, partial(pod_cgroup, Path(root)))
        keeper = CapKeeper(_Reactor(), HelperClient(run / HELPER), pods, lambda _: None)
        gpu = Gpu(UUID, 0, "A100", 40 * 2**30)
        keeper.order(CapOrders(MemoryLimits.REQUIRE, CapTerms(), {UUID: gpu}, "615", readable=True))
        took = []
        for number in range(200 if quick else 1000):
            began = time.perf_counter()
            keeper.before_start(POOL, {memory_stem(POOL): IntSet.of([number % PODS])})
            took.append((time.perf_counter() - began) * 1000)
        yield Number("PreStartContainer with the helper, p50", "ms", median(took))
        target = Target(STARTED_WITHIN, f"{STARTED_WITHIN:g} ms")
        yield Number("PreStartContainer, p99", "ms", percentile(took, 0.99), target=target)
        small = Target(LARGEST, f"{LARGEST:g} MiB")
        yield Number("RSS of the helper", "MiB", memory(helper.pid).rss, target=small)
        (worker,) = children(helper.pid)
        yield Number("RSS of its worker", "MiB", memory(worker).rss, target=small)
        both = memory(helper.pid).pss + memory(worker).pss
        yield Number("PSS of both", "MiB", both)


def _checkpoint(uids: list[str]) -> bytes:
    envs = {
        "SGPUD_GPU_UUIDS": UUID,
        "SGPUD_SHARES": "1",
        "SGPUD_SHARES_PER_GPU": "39",
        "SGPUD_MEMORY_BYTES": str(2**30),
        "SGPUD_SINCE": "1000",
    }
    stem = memory_stem(POOL)
    return encode(
        {
            Slot(uid, "main", POOL): PodDevices(
                {0: (share_id(stem, number),)}, api.ContainerAllocateResponse(envs=envs)
            )
            for number, uid in enumerate(uids)
        },
        {},
    )


def _await(path: Path) -> None:
    end = time.monotonic() + WITHIN
    while time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                threading.Event().wait(0.01)
            else:
                return
    raise NotMeasuredError("the helper does not listen")
