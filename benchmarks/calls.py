"""How long the kubelet's calls take, idle and while the daemon is reloaded again and again."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle

from benchmarks.client import Job, Side, allocates, call, prefers, processes
from benchmarks.node import FLOOR, RESOURCE, WITHIN, Node, Process
from benchmarks.report import Number, Target, percentile

P50, P99 = 0.5, 0.99
FACTORS = {(8, 8, 1000): 2.0, (8, 16, 1000): 3.0}
"""Of a preference: how many times as long as the floor's, for so many shares among so many GPUs
with so many shares each."""
STORM_EVERY = 0.1
"""Seconds between two reloads of a storm."""


def allocate(*, quick: bool) -> Iterator[Number]:
    """Allocate at 8 x 100, by one caller and by 16."""
    with _both(8, 100) as (node, _), processes() as pool:
        sides = {
            resource: Side(node.socket(resource), allocates(node.ids(resource)))
            for resource in (FLOOR, RESOURCE)
        }
        for callers, calls in ((1, 800 if quick else 4000), (16, 1600 if quick else 6400)):
            job = Job("Allocate", sides, calls, rounds=8, callers=callers)
            took = pool.submit(call, job).result()
            by = "1 caller" if callers == 1 else f"{callers} callers"
            yield _against_floor(f"Allocate, {by}, p50", took, P50, 1.3)
            yield _against_floor(f"Allocate, {by}, p99", took, P99, 2.0)


def storm(*, quick: bool) -> Iterator[Number]:
    """Allocate at 16 x 1000 while SIGHUP changes the number of shares ten times a second.

    The floor is measured twice: in calm, between storms, which the target counts from; and during
    them, which shows how much of it all is this machine's.
    """
    calm: list[float] = []
    beside: list[float] = []
    stormy: list[float] = []
    reloads = 0
    with _both(16, 1000) as (node, daemon), processes() as pool:
        floor = Side(node.socket(FLOOR), allocates(node.ids(FLOOR)[:1000]))
        ours = Side(node.socket(RESOURCE), allocates(node.ids(RESOURCE)[:1000]))
        calls = 200 if quick else 500
        for _ in range(3 if quick else 5):
            took = pool.submit(call, Job("Allocate", {"floor": floor}, calls, 1)).result()
            calm += took["floor"]
            with _storm(node, daemon) as count:
                both = {"floor": floor, "sgpud": ours}
                took = pool.submit(call, Job("Allocate", both, calls, 2)).result()
                reloads += len(count)
            beside += took["floor"]
            stormy += took["sgpud"]
    took = {RESOURCE: stormy, FLOOR: calm}
    yield _against_floor(f"Allocate, {reloads} reloads at 16x1000, p50", took, P50, 1.3)
    yield _against_floor(f"Allocate, {reloads} reloads at 16x1000, p99", took, P99, 4.0)
    yield Number("  the floor beside that storm, p50", "ms", percentile(beside, P50))
    yield Number("  the floor beside that storm, p99", "ms", percentile(beside, P99))


def prefer(*, quick: bool) -> Iterator[Number]:
    """GetPreferredAllocation among 8 x 100 to 8 x 5000 free shares, and 16 x 1000, for 1, 4, 8."""
    with processes() as pool:
        for gpus, shares, calls in ((8, 100, 400), (8, 1000, 200), (16, 1000, 100), (8, 5000, 60)):
            with _both(gpus, shares) as (node, _):
                for size in (1, 4, 8):
                    sides = {
                        resource: Side(node.socket(resource), prefers(node.ids(resource), size))
                        for resource in (FLOOR, RESOURCE)
                    }
                    job = Job("GetPreferredAllocation", sides, calls // 4 if quick else calls)
                    took = pool.submit(call, job).result()
                    factor = FACTORS.get((size, gpus, shares))
                    name = f"GetPreferredAllocation of {size}, {gpus}x{shares}"
                    yield _against_floor(f"{name}, p50", took, P50, factor)


def _against_floor(
    name: str, took: dict[str, list[float]], part: float, times: float | None
) -> Number:
    floor = percentile(took[FLOOR], part)
    target = Target(floor * times, f"{times:g} x floor") if times else None
    return Number(name, "ms", percentile(took[RESOURCE], part), floor=floor, target=target)


@contextmanager
def _both(gpus: int, shares: int) -> Iterator[tuple[Node, Process]]:
    """A node on which the floor and the daemon are registered and listed."""
    with Node(gpus, shares) as node:
        node.registered(FLOOR, node.floor().began)
        daemon = node.sgpud()
        node.registered(RESOURCE, daemon.began)
        yield node, daemon


@contextmanager
def _storm(node: Node, daemon: Process) -> Iterator[list[int]]:
    """SIGHUP, each time with another number of shares, until the block ends; the numbers so far."""
    over = threading.Event()
    sent: list[int] = []

    def reload() -> None:
        for shares in cycle((node.shares - 100, node.shares)):
            node.configure(shares)
            daemon.send(signal.SIGHUP)
            sent.append(shares)
            if over.wait(STORM_EVERY):
                return

    thread = threading.Thread(target=reload, name="storm")
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join(WITHIN)
