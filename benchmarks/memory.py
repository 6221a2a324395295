"""Memory shares and the full-GPU guard: what a choice among them and a decision take."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from attrs import evolve
from twisted.internet.task import Clock

from benchmarks.client import Job, Side, call, prefers, processes
from benchmarks.node import RESOURCE, Node
from benchmarks.report import Number, Target, percentile
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import Sample
from sgpud.core.planning.holdings import CheckpointState
from sgpud.core.planning.node import measured
from sgpud.core.planning.plan import Plan
from sgpud.core.sharing.rules import Sharing
from sgpud.kubelet.deviceplugin.publisher import SnapshotPublisher
from sgpud.node.reconciler import Reconciler

GIB = 2**30
CHOICES = ((8, 80, 2.0), (16, 1024, 12.0))
"""GPUs, shares of each, and the milliseconds within which 16 of them are to be chosen."""
DECIDED_WITHIN = 50.0
"""Milliseconds from a decision of the guard until its list message is there to be sent."""


def memory(*, quick: bool) -> Iterator[Number]:
    """GetPreferredAllocation of 16 memory shares, and the guard's way to a list message."""
    calls = 60 if quick else 300
    with processes() as pool:
        for gpus, shares, within in CHOICES:
            with Node(gpus, shares) as node:
                node.share_memory(80 * 2**10 // shares)
                node.registered(RESOURCE, node.sgpud().began)
                side = Side(node.socket(RESOURCE), prefers(node.ids(RESOURCE), 16))
                job = Job("GetPreferredAllocation", {RESOURCE: side}, calls)
                took = pool.submit(call, job).result()[RESOURCE]
            name = f"GetPreferredAllocation of 16, {gpus}x{shares} of memory, p50"
            target = Target(within, f"{within:g} ms")
            yield Number(name, "ms", percentile(took, 0.5), target=target)
    took = [_decision() for _ in range(10 if quick else 50)]
    target = Target(DECIDED_WITHIN, f"{DECIDED_WITHIN:g} ms")
    name = "a full GPU to the list message, 16x1000, p99"
    yield Number(name, "ms", percentile(took, 0.99), target=target)


def _decision() -> float:
    """Milliseconds from a measurement until another thread has the message that it makes."""
    clock, publisher = Clock(), SnapshotPublisher()
    reconciler = Reconciler(clock, time.time, publisher, _nothing, _nothing)
    gpus = tuple(
        Gpu(f"GPU-{n:08x}-0000-4000-8000-000000000000", n, "A100", 40 * GIB, fake=True)
        for n in range(16)
    )
    default = evolve(Sharing().default, factor=1000)
    reconciler.update(
        sharing=Sharing(default=default, full_guard=True), gpus=gpus, checkpoint=CheckpointState()
    )
    reconciler.reconcile()
    follower, had, came = publisher.subscribe(), threading.Event(), threading.Event()
    at = 0.0

    def follow() -> None:
        nonlocal at
        for number, _ in enumerate(follower):
            at = time.perf_counter()
            (came if number else had).set()

    thread = threading.Thread(target=follow, name="list")
    thread.start()
    had.wait(10)
    began = time.perf_counter()
    reconciler.change(
        lambda node: measured(node, [Sample(gpus[0].uuid, 39 * GIB)], clock.seconds())
    )
    reconciler.reconcile()
    came.wait(10)
    follower.close()
    thread.join(10)
    return (at - began) * 1000


def _nothing(_: Plan | object) -> None:
    """Nobody else listens."""
