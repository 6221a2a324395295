"""A GPU that falls ill: from its XID to the list, and what a GPU that hangs costs the others."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.client import Job, Side, allocates, call, processes
from benchmarks.node import RESOURCE, WITHIN, Node, Process
from benchmarks.report import NotMeasuredError, Number, Target, median, percentile
from benchmarks.resources import SETTLE, idlers, stub_library

GPUS, SHARES, RUNNING = 8, 100, 500
LISTED_WITHIN = 100.0
"""Milliseconds from an XID until the kubelet has the list."""
ENDED_WITHIN = 2000.0
"""Milliseconds from SIGTERM until the process is gone."""
TAKEN_WITHIN = 50.0
"""Milliseconds from the end of the one that serves to the standby's Register."""
APART = 0.7
"""Seconds between two XIDs: they meet the sampling, once a second, at every stage of it."""
XID = 79


def health(*, quick: bool) -> Iterator[Number]:
    """XIDs while processes are sampled; then calls, a takeover and an end while a GPU hangs."""
    took = _xids()
    target = Target(LISTED_WITHIN, f"{LISTED_WITHIN:g} ms")
    name = f"XID to the list, {RUNNING} processes sampled"
    yield Number(f"{name}, p50", "ms", median(took))
    yield Number(f"{name}, worst of {len(took)}", "ms", max(took), target=target)
    yield from _beside_a_hang(800 if quick else 4000)


class _Script:
    """What the stub library tells of a node."""

    def __init__(self, node: Node) -> None:
        self._path = node.folder / "script"

    def add(self, line: str) -> float:
        """Have it tell one thing more; monotonic seconds of that moment."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{self._path.read_text()}{line}\n")
        at = time.monotonic()
        new.replace(self._path)
        return at


def _xids() -> list[float]:
    """Milliseconds from an XID of each GPU but the last to the list without that GPU."""
    with ExitStack() as stack:
        pids = idlers(stack, RUNNING)
        node = stack.enter_context(Node(GPUS, SHARES))
        node.configure(SHARES, 'measure_every = "1s"\n')
        daemon = node.sgpud_on_nvml(stub_library(node, lambda gpu: pids[gpu::GPUS]))
        node.registered(RESOURCE, daemon.began)
        script = _Script(node)
        # By then the probe listens to the GPUs' events.
        threading.Event().wait(2 * SETTLE)
        took = []
        for gpu in range(GPUS - 1):
            began = script.add(f"event 1 {gpu} 8 {XID} -1 -1")
            well = (GPUS - 1 - gpu) * SHARES
            took.append((_listed(node, well) - began) * 1000)
            threading.Event().wait(APART)
        return took


def _listed(node: Node, well: int) -> float:
    """When the kubelet had a list with so many Healthy shares; waits for it."""
    try:
        node.kubelet.wait_for(lambda k: k.allocatable(RESOURCE) == well, WITHIN)
    except TimeoutError as problem:
        raise NotMeasuredError(f"{well} Healthy shares: {problem}") from problem
    lists = node.kubelet.lists(RESOURCE)
    return next(one.at for one in lists if len(one.healthy) == well)


def _beside_a_hang(calls: int) -> Iterator[Number]:
    with ExitStack() as stack:
        well, sick = (stack.enter_context(Node(GPUS, SHARES)) for _ in range(2))
        served = [_on_stub(node) for node in (well, sick)]
        environment = stub_library(sick)
        standby = sick.standby(environment)
        # Nothing that comes back: the probe is replaced, and leaves the GPU out.
        _Script(sick).add("hang nvmlDeviceGetName 0")
        _listed(sick, (GPUS - 1) * SHARES)
        yield from _allocate(well, sick, calls, stack)
        told = time.monotonic()
        served[1].stop(signal.SIGKILL)
        attempt, _ = sick.registered(RESOURCE, told)
        target = Target(TAKEN_WITHIN, f"{TAKEN_WITHIN:g} ms")
        yield Number(
            "a GPU hangs: SIGKILL to the standby's Register",
            "ms",
            (attempt.at - told) * 1000,
            target=target,
        )
        told = time.monotonic()
        gone = standby.stop(signal.SIGTERM)
        target = Target(ENDED_WITHIN, f"{ENDED_WITHIN:g} ms")
        yield Number("a GPU hangs: SIGTERM to the end", "ms", (gone - told) * 1000, target=target)


def _on_stub(node: Node) -> Process:
    daemon = node.sgpud_on_nvml(stub_library(node))
    node.registered(RESOURCE, daemon.began)
    return daemon


def _allocate(well: Node, sick: Node, calls: int, stack: ExitStack) -> Iterator[Number]:
    """Allocate where a GPU hangs; where the floor stands, the same where none does."""
    sides = {
        name: Side(node.socket(RESOURCE), allocates(node.ids(RESOURCE)))
        for name, node in (("well", well), ("sick", sick))
    }
    pool = stack.enter_context(processes())
    took = pool.submit(call, Job("Allocate", sides, calls, rounds=10)).result()
    for name, part, times in (("p50", 0.5, None), ("p99", 0.99, 1.1)):
        calm = percentile(took["well"], part)
        yield Number(
            f"a GPU hangs: Allocate, {name} (floor: none hangs)",
            "ms",
            percentile(took["sick"], part),
            floor=calm,
            target=Target(calm * times, f"{times:g} x where none hangs") if times else None,
        )
