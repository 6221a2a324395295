"""Plays a file of fake GPUs and its script, with the callbacks of `nvml.monitor.NvmlMonitor`."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed

from sgpud.bridge import Reactor, Timer
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import GpuEvent, GpuProcesses, Sample
from sgpud.gpus.fake.file import FakeNode
from sgpud.gpus.fake.script import ScriptedEvent
from sgpud.gpus.fake.world import FakeState, after, event_of
from sgpud.gpus.nvml.faults import GpuFault, GpuFaultKind
from sgpud.gpus.nvml.monitor import RELEASE, CallCounts, discarded, ignored
from sgpud.gpus.nvml.probe.protocol import MEASURE_EVERY

DRIVER = "fake"
"""In place of the driver's version."""
_GONE = True


class FakeMonitor:
    """Reports fake GPUs as `NvmlMonitor` reports real ones: the same calls in the same order.

    The script's clock starts with the first `start`, and runs on while the GPUs are released.
    """

    def __init__(
        self,
        reactor: Reactor,
        node: FakeNode,
        on_inventory: Callable[[tuple[Gpu, ...], str], None],
        on_fault: Callable[[GpuFault], None],
        on_gpu_error: Callable[[str, str], None] = ignored,
        *,
        on_event: Callable[[GpuEvent], None] = discarded,
        on_samples: Callable[[tuple[Sample, ...]], None] = discarded,
        on_processes: Callable[[tuple[GpuProcesses, ...]], None] = discarded,
    ) -> None:
        self._reactor = reactor
        self._on_inventory = on_inventory
        self._on_fault = on_fault
        self._on_gpu_error = on_gpu_error
        self._on_event = on_event
        self._on_samples = on_samples
        self._on_processes = on_processes
        self.calls = CallCounts()
        """Always empty: there is no NVML process."""
        self._world = FakeState(node.gpus)
        self._script = list(node.script)
        self._began: float | None = None
        self._measure_every = MEASURE_EVERY
        self._next = Timer(reactor)
        self._sampling = Timer(reactor)
        self._playing = Timer(reactor)
        self._released = True
        self._reported: tuple[Gpu, ...] | GpuFault | None = None
        self._failing: dict[str, str] = {}

    def start(self) -> None:
        """Report the GPUs in the next iteration of the reactor."""
        self._released = False
        if self._began is None:
            self._began = self._reactor.seconds()
        self._next.set(0, self._answer)

    def stop(self) -> Deferred[None]:
        """Stop reporting."""
        self._released = True
        for timer in (self._next, self._sampling, self._playing):
            timer.cancel()
        return succeed(None)

    def release(self) -> Deferred[bool]:
        """Behave as if the driver were released, for RELEASE seconds."""
        self.stop()
        self._on_fault(GpuFault(GpuFaultKind.RELEASED, f"released for {RELEASE / 60:.0f} minutes"))
        self._next.set(RELEASE, self.acquire)
        return succeed(_GONE)

    def acquire(self) -> None:
        """End a release; without effect otherwise."""
        if self._released:
            self.start()

    @property
    def alive(self) -> bool:
        """Whether it reports the GPUs, or will."""
        return self._next.active or self._sampling.active

    def set_measure_every(self, seconds: float) -> None:
        """Sample every `seconds` from now on."""
        if seconds != self._measure_every:
            self._measure_every = seconds
            if self._sampling.active:
                self._sampling.set(seconds, self._sample)

    def _answer(self) -> None:
        """Report everything, like a probe that has just started."""
        first = self._reported is None
        self._reported, self._failing = None, {}
        happened = self._due()
        self._report()
        self._sample()
        # What happened while the GPUs were released was not observed.
        self._events(happened if first else [])
        self._wait()

    def _play(self) -> None:
        """Report what has happened by now."""
        self._events(self._due())
        self._report()
        self._wait()

    def _wait(self) -> None:
        if self._script and not self._released:
            self._playing.set(max(0.0, self._script[0].at - self._now()), self._play)

    def _now(self) -> float:
        began = self._reactor.seconds() if self._began is None else self._began
        return self._reactor.seconds() - began

    def _due(self) -> list[ScriptedEvent]:
        """Apply the events of the script that are due."""
        now = self._now()
        due = [event for event in self._script if event.at <= now]
        del self._script[: len(due)]
        for event in due:
            self._world = after(self._world, event)
        return due

    def _events(self, happened: list[ScriptedEvent]) -> None:
        for scripted in happened:
            event = event_of(self._world, scripted)
            if event is not None and not self._released:
                self._on_event(event)
                if scripted.action == "recovery":
                    self._sample()

    def _report(self) -> None:
        """Report the GPUs, or why there are none, if that has changed."""
        for uuid, (event, text) in self._world.failing.items():
            if self._failing.get(uuid) != text and not self._released:
                self._on_event(event)
                self._on_gpu_error(uuid, text)
        self._failing = {uuid: text for uuid, (_, text) in self._world.failing.items()}
        found = self._world.fault or self._world.inventory
        if found == self._reported or self._released:
            return
        self._reported = found
        if isinstance(found, GpuFault):
            self._on_fault(found)
        else:
            self._on_inventory(found, DRIVER)

    def _sample(self) -> None:
        if not self._released:
            self._sampling.set(self._measure_every, self._sample)
            if self._world.fault is None:
                self._on_samples(self._world.samples)
                self._on_processes(self._world.running)
