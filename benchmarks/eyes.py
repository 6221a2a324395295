"""What it costs to be looked at: the metrics, the web part's memory, the sampling of processes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.machine import children, processor_seconds
from benchmarks.node import RESOURCE, Node
from benchmarks.report import NotMeasuredError, Number, Target, percentile
from benchmarks.resources import SETTLE, WATCHED, idlers, stub_library
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import GpuProcess, GpuProcesses, ProcessOwner, Sample, Usage
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.holdings import CheckpointState, Holder
from sgpud.core.planning.node import Node as Facts
from sgpud.core.planning.node import measured
from sgpud.core.planning.plan import plan
from sgpud.core.sharing.rules import Sharing
from sgpud.core.status.view import (
    ConfigurationView,
    Counters,
    InstanceView,
    NodeView,
    Timestamps,
    view,
)
from sgpud.serve.metrics.collector import encoder

GIB = 2**30
GPUS, HOLDERS, RUNNING = 16, 500, 500
SCRAPED_WITHIN = 30.0
"""Milliseconds for /metrics of so many GPUs and holders."""
WEB_WITHIN = 6.0
"""MiB that the web part may add to a process."""
SAMPLED_WITHIN = 0.5
"""Percent of a core for sampling so many processes every 5 s, in both processes together."""
_IMPORTS = """
import resource, sys
import grpc, google.protobuf, attrs, json, ipaddress, twisted.internet.reactor, twisted.logger
import twisted.internet.endpoints, twisted.internet.unix, twisted.internet.threads
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
before = rss()
if sys.argv[1] == "web":
    from sgpud.serve.metrics.collector import encoder
    from sgpud.serve.http.pages import pages
    from sgpud.serve.http.site import Clients
    from sgpud.serve.http.access import Pages
else:
    import sgpud.core.status.view
print(rss() - before)
"""


def eyes(*, quick: bool) -> Iterator[Number]:
    """A scrape, the web part, and sampling."""
    yield from _scrapes(100 if quick else 300)
    added = [_added("web") - _added("core") for _ in range(3 if quick else 7)]
    target = Target(WEB_WITHIN, f"{WEB_WITHIN:g} MiB")
    yield Number("web part: RSS added", "MiB", sorted(added)[len(added) // 2], target=target)
    yield _sampling()


def _scrapes(times: int) -> Iterator[Number]:
    node, usage = busy_node()
    sharing_plan = plan(node, 1000.0)

    def look() -> NodeView:
        configuration, instance = (
            ConfigurationView("f", "file"),
            InstanceView("serving", "/plugins"),
        )
        moment = Timestamps(1.0, 1000.0)
        return view(node, sharing_plan, {}, configuration, Counters(), instance, moment, usage)

    encode = encoder(look)
    size = len(encode("")[0])
    if size < HOLDERS * 4 * 50:
        raise NotMeasuredError(f"a scrape of {size} bytes has not every holder in it")
    took = []
    for _ in range(times):
        began = time.perf_counter()
        encode("")
        took.append((time.perf_counter() - began) * 1000)
    target = Target(SCRAPED_WITHIN, f"{SCRAPED_WITHIN:g} ms")
    name = f"/metrics, {GPUS} GPUs and {HOLDERS} holders"
    yield Number(f"{name}, p50", "ms", percentile(took, 0.5), target=target)
    yield Number(f"{name}, p99", "ms", percentile(took, 0.99))


def busy_node() -> tuple[Facts, Usage]:
    """A node with every holder's processes on it."""
    gpus = tuple(
        Gpu(f"GPU-{n:08x}-0000-4000-8000-000000000000", n, "NVIDIA A100-SXM4-80GB", 80 * GIB)
        for n in range(GPUS)
    )
    holders, places = [], {}
    running: dict[str, list[GpuProcess]] = {gpu.uuid: [] for gpu in gpus}
    for number in range(HOLDERS):
        uuid, pod = gpus[number % GPUS].uuid, f"{number:08x}-1111-4000-8000-000000000000"
        shares = {uuid: IntSet.of([number // GPUS])}
        holders.append(
            Holder(pod, "main", RESOURCE, shares, {}, {uuid: GIB}, 1.0, "team", f"pod-{number}")
        )
        running[uuid].append(GpuProcess(number + 1, 2 * GIB, 3))
        places[number + 1] = ProcessOwner((pod,), "main", "c" * 64, "/kubepods", "python3")
    facts = Facts(Sharing(), gpus, checkpoint=CheckpointState(tuple(holders), 1000.0))
    samples = [Sample(gpu.uuid, 60 * GIB, 80 * GIB, 50) for gpu in gpus]
    node = advance(measured(facts, samples, 0.5), 1.0, 1000.0)
    told = {uuid: GpuProcesses(uuid, tuple(found)) for uuid, found in running.items()}
    return node, Usage(0.5, told, places)


def _added(part: str) -> float:
    """MiB that a part adds to a process that has what the daemon has without it."""
    words = [sys.executable, "-c", _IMPORTS, part]
    return float(subprocess.run(words, check=True, capture_output=True, timeout=60).stdout)


def _sampling() -> Number:
    """Percent of a core that a node with so many processes costs more than one with none.

    The stub reads its script at every call: it has as many lines in both, or its reading would be
    most of what is measured.
    """
    with ExitStack() as stack:
        pids = idlers(stack, RUNNING)
        quiet, busy = (_processor(pids, word) for word in ("nothing", "process"))
    target = Target(SAMPLED_WITHIN, f"{SAMPLED_WITHIN:g} %")
    name = f"sampling {RUNNING} processes every 5 s, of one core"
    return Number(name, "%", max(0.0, busy - quiet), target=target)


def _processor(pids: list[int], word: str) -> float:
    """Percent of a core that the daemon and its probe use, these processes on eight GPUs."""
    with Node(8, 100) as node:
        script = stub_library(node, lambda gpu: pids[gpu :: node.gpus], word)
        daemon = node.sgpud_on_nvml(script)
        node.registered(RESOURCE, daemon.began)
        threading.Event().wait(SETTLE)
        found = [daemon.pid, *children(daemon.pid)]
        if len(found) != 2:  # noqa: PLR2004 - the daemon and its probe
            raise NotMeasuredError(f"{len(found) - 1} child processes, not one probe")
        before = sum(map(processor_seconds, found))
        threading.Event().wait(2 * WATCHED)
        return (sum(map(processor_seconds, found)) - before) / (2 * WATCHED) * 100
