"""Two pods a second for a minute, while a promise of the configuration changes under them.

The kubelet's books are as late as the real one's: it gives a finished pod's ids to the next pod
before anybody can tell sgpud that the pod has ended.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Event
from typing import TypeAlias

from attrs import define, field

from sgpud.testing.kubelet.records import AdmissionError
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.abuse.checker import Checker, declared
from tests.daemon.node import RESOURCE, A, B, Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN, tell
from tests.daemon.steps import became

Scene: TypeAlias = Callable[[], None]
PACE = 0.5
"""Seconds between two pods."""
LASTS = 60.0
PODS = 40
"""Pods that run at a time, as long as each of them starts."""
GIB = 2**30
ONE_GPU = f'[[gpu]]\nuuid = "{A}"\nproduct = "NVIDIA A100"\nmemory = "40GiB"\n'


@define
class Churn:
    """Pods of one resource that end and start, the oldest first."""

    kubelet: StandInKubelet
    shares: int = 1
    checker: Checker = field(factory=lambda: Checker({A: 40 * GIB, B: 24 * GIB}))
    refused: Counter[str] = field(factory=Counter)
    started: int = 0
    running: deque[tuple[str, str, float]] = field(factory=deque)
    """Pod, GPU and monotonic time of its start, oldest first."""
    _number: int = 0

    def begin(self) -> None:
        """Start a pod, or have it refused."""
        self._number += 1
        pod = f"pod-{self._number}"
        try:
            given = self.kubelet.admit(
                pod, "churn", pod, "main", {RESOURCE: self.shares}, timeout=WITHIN
            )
        except AdmissionError as error:
            self.refused[error.details.removeprefix("sgpud: ").split(":")[0] or "kubelet"] += 1
            return
        now = time.monotonic()
        (gpu,) = declared(given)
        self.started += 1
        self.running.append((pod, gpu, now))
        self.checker.admitted(pod, given, now)

    def end(self) -> None:
        """End the oldest pod; the kubelet frees its ids with the next Allocate."""
        if self.running:
            pod, _, _ = self.running.popleft()
            self.kubelet.terminate(pod)
            self.checker.ended(pod)

    def turn(self, seconds: float, look: Callable[[], None] = lambda: None) -> None:
        """End one and start one, every PACE seconds; `look` is called after each."""
        pause, end = Event(), time.monotonic() + seconds
        while time.monotonic() < end:
            self.end()
            self.begin()
            look()
            pause.wait(PACE)

    def fill(self, gpu: str, count: int) -> None:
        """Start pods until so many run on a GPU: it is as full as it may be, and no fuller."""
        pause, end = Event(), time.monotonic() + WITHIN
        while self.on(gpu) < count:
            assert time.monotonic() < end, f"{self.on(gpu)} of {count} on {gpu}: {self.refused}"
            self.begin()
            pause.wait(PACE)

    def on(self, gpu: str, since: float = float("-inf")) -> int:
        """How many pods run on a GPU that were started after some time."""
        return sum(where == gpu and at > since for _, where, at in self.running)

    def finish(self, what: str) -> None:
        """Say what happened, and fail where a promise was broken."""
        said = f"{what}: {self.started} started, refused: {dict(self.refused)}"
        tell(said)
        assert self.checker.violations == [], f"{said}; {self.checker.violations}"


@contextmanager
def churning(
    gpus: str, configuration: Mapping[str, str | int], pods: int, shares: int = 1
) -> Iterator[tuple[Churn, Node, Process]]:
    """So many pods on a node with these GPUs."""
    with Node() as node, node.kubelet() as kubelet:
        if gpus:
            node.gpus.write_text(gpus)
        node.configure(**configuration, level="warn")  # type: ignore[arg-type]
        process = node.start()
        kubelet.wait_for(lambda k: k.allocatable(RESOURCE), WITHIN)
        churn = Churn(kubelet, shares)
        for _ in range(pods):
            churn.begin()
        assert len(churn.running) == pods, churn.refused
        yield churn, node, process


def a_cordoned_gpu_gets_no_more_pods() -> None:
    """The other GPU is full before long, and the kubelet then chooses what a pod has left."""
    with churning("", {"factor": 30}, PODS) as (churn, _, process):
        assert churn.on(A) > 0
        process.ask("cordon", gpu=A)
        churn.checker.cordoned(A, time.monotonic())
        churn.turn(LASTS)
        assert churn.on(A) == 0, "each pod of before has ended"
        assert churn.refused["withheld"] or churn.refused["kubelet"]
        churn.fill(B, 30)
        assert churn.on(A) == 0
        churn.finish("cordoned")


def fewer_places_hold_for_every_pod_that_comes_after() -> None:
    with churning(ONE_GPU, {"factor": 100}, PODS) as (churn, node, process):
        node.configure(10, level="warn")
        process.hang_up()
        reloaded = time.monotonic()
        most = 0

        def look() -> None:
            nonlocal most
            most = max(most, churn.on(A, reloaded))

        churn.turn(LASTS, look)
        assert most <= 10
        assert churn.on(A) <= 10, "each pod of before has ended"
        churn.fill(A, 10)
        became(churn.kubelet, RESOURCE, 10, 10)
        churn.finish(f"100 places to 10, at most {most} of after")


def larger_memory_shares_fit_on_their_gpus() -> None:
    sharing = 'advertise = "all"\nshare_memory = "{}GiB"'
    with churning("", {"sharing": sharing.format(1)}, 12, shares=5) as (churn, node, process):
        node.configure(sharing=sharing.format(2), level="warn")
        process.hang_up()
        before = churn.started
        churn.turn(LASTS)
        assert churn.started > before
        churn.finish("shares of 1GiB to 2GiB")


SCENES: tuple[Scene, ...] = (
    a_cordoned_gpu_gets_no_more_pods,
    fewer_places_hold_for_every_pod_that_comes_after,
    larger_memory_shares_fit_on_their_gpus,
)
