"""What is known of processes, while looking for their places takes its time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from attrs import define, field
from twisted.python.threadpool import ThreadPool

from sgpud.core.gpu.observations import GpuProcess, GpuProcesses, ProcessOwner
from sgpud.gpus.process_locator import LocatedProcesses
from sgpud.gpus.usage_watch import UsageWatch
from tests.gpus.nvml.stub import Bench

HERE = ProcessOwner(command="cat")


@define
class Looks:
    """Finds every process, once it may."""

    may: threading.Event = field(factory=threading.Event)
    looked: list[list[int]] = field(factory=list)
    problem: str = ""

    def look(self, pids: Iterable[int]) -> LocatedProcesses:
        self.looked.append(list(pids))
        assert self.may.wait(20)
        if self.problem == "fails":
            raise OSError(5, "as the test wants it")
        return LocatedProcesses(dict.fromkeys(self.looked[-1], HERE), self.problem)


class Threads:
    """The test's reactor with threads: it has none of its own before it runs by itself."""

    def __init__(self, bench: Bench) -> None:
        self._reactor: Any = bench.reactor
        self.pool = ThreadPool(1, 2)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def getThreadPool(self) -> ThreadPool:
        return self.pool


@pytest.fixture
def threads(bench: Bench) -> Iterator[Threads]:
    made = Threads(bench)
    made.pool.start()
    yield made
    made.pool.stop()


def running(*pids: int) -> tuple[GpuProcesses, ...]:
    return (
        GpuProcesses("GPU-1", tuple(GpuProcess(pid, pid) for pid in pids)),
        GpuProcesses("GPU-2"),
    )


def test_the_latest_sample_with_its_process_owners(bench: Bench, threads: Threads) -> None:
    looks = Looks()
    looks.may.set()
    watch = UsageWatch(threads, looks.look)
    began = bench.reactor.seconds()
    watch.sampled(running(12, 13))
    bench.until(lambda: watch.latest)
    assert watch.latest is not None
    assert watch.latest.places == {12: HERE, 13: HERE}
    assert watch.latest.running["GPU-1"].processes[1].pid == 13
    assert began <= watch.latest.at <= bench.reactor.seconds()


def test_one_lookup_at_a_time(bench: Bench, threads: Threads) -> None:
    looks = Looks()
    watch = UsageWatch(threads, looks.look)
    for pid in (1, 2, 3):
        watch.sampled(running(pid))
    bench.until(lambda: looks.looked)
    assert looks.looked == [[1]]
    assert watch.latest is None
    looks.may.set()
    bench.until(lambda: watch.latest)
    watch.sampled(running(4))
    bench.until(lambda: watch.latest and 4 in watch.latest.places)
    assert looks.looked == [[1], [4]]


def test_lookups_go_on_after_a_failure(bench: Bench, threads: Threads) -> None:
    looks = Looks(problem="fails")
    looks.may.set()
    watch = UsageWatch(threads, looks.look)
    watch.sampled(running(1))
    bench.until(lambda: looks.looked)
    looks.problem = "needs hostPID: true"

    def again() -> object:
        watch.sampled(running(2))
        return watch.latest

    bench.until(again)
    assert watch.latest is not None
    assert watch.latest.problem == "needs hostPID: true"
