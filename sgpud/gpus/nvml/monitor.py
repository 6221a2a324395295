"""Keeps a child process running that reads the GPUs, and reports what it finds."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from sgpud.bridge import Reactor, Timer
from sgpud.core.gpu.gpu import Gpu, UnreadableGpu
from sgpud.core.gpu.observations import EventKind, GpuEvent, GpuProcesses, Sample
from sgpud.core.status.view import CallTimes
from sgpud.gpus.nvml.child import Starter
from sgpud.gpus.nvml.driver_files import CHECK_EVERY, signs
from sgpud.gpus.nvml.faults import GpuFault, GpuFaultKind, back_off
from sgpud.gpus.nvml.messages import EventMessage, Facts, GpuErrorMessage, Inventory, SamplesMessage
from sgpud.gpus.nvml.probe.protocol import MEASURE_EVERY
from sgpud.gpus.nvml.run import ProbeRun, ProbeTimeouts, Start


class CallCounts:
    """The counts of all processes of one monitor."""

    def __init__(self) -> None:
        """All counts start at 0."""
        self._starts = 0
        self._times: dict[str, tuple[int, float]] = {}

    def started(self) -> None:
        """A process was started."""
        self._starts += 1

    def took(self, calls: Iterable[tuple[str, int, float]]) -> None:
        """Calls, how often each was made, and how many seconds it took."""
        for call, times, seconds in calls:
            before = self._times.get(call, (0, 0.0))
            self._times[call] = (before[0] + times, before[1] + seconds)

    @property
    def counted(self) -> tuple[int, tuple[CallTimes, ...]]:
        """The number of processes started, and the times of their calls."""
        times = (CallTimes(call, *counted) for call, counted in sorted(self._times.items()))
        return self._starts, tuple(times)


RELEASE = 15 * 60.0
"""Seconds after which a release ends on its own: time to unload a driver or to reset a GPU, but not
so long that a forgotten release takes the node out of service for a day."""

_GONE = True


def ignored(gpu: str, error: str) -> None:
    """A GPU error that needs no handling: the inventory lacks the GPU, the log has the error."""


def discarded(_: object) -> None:
    """A value that needs no handling."""


def _within_memory(
    running: GpuProcesses, memory: int | None
) -> tuple[GpuProcesses, tuple[str, ...]]:
    """The processes of a GPU, without what is more than it has; and what that was."""
    beyond = [one for one in running.processes if memory and (one.used or 0) > memory]
    if not beyond:
        return running, ()
    kept = tuple(evolve(one, used=None) if one in beyond else one for one in running.processes)
    told = (f"{running.uuid}: process {one.pid}: {one.used} of {memory} bytes" for one in beyond)
    return evolve(running, processes=kept), tuple(told)


@frozen
class Machine:
    """What a monitor needs of the node."""

    start: Start
    signs: Callable[[], object] = lambda: None
    """Its value changes when the driver or its GPUs have changed."""


class NvmlMonitor:
    """The GPUs of this node, through NVML in a child process that is replaced when it fails.

    `on_inventory` gets every GPU and the driver's version, at first and after each change; it
    also ends a fault. `on_fault` is called once for each new reason why no GPU can be read: the
    last inventory is then the last known one. `on_gpu_error` gets UUID (or index) and reason for a
    GPU that fails on its own, and is missing from the inventory.

    `on_event` gets what happens to a GPU within milliseconds: XIDs and ECC errors, an NVML error
    (`detail` is its text, with its number) and a call that hangs, once each time they begin. Events
    that come in a burst are told together: `count` says how many. `on_samples` gets a
    reading of every GPU, and of every MIG instance, each MEASURE_EVERY seconds; `on_processes` gets
    the processes on each of them, just after that.

    `on_unreadable` gets the GPUs that NVML counts and that cannot be shared, with each inventory.

    A child that ends or hangs after it had responded is replaced at once; it is a fault only if the
    next one does not respond. A GPU on which a call hung is left out for some minutes.
    """

    _log = Logger()

    def __init__(  # noqa: PLR0913 - one callback for each kind of fact
        self,
        reactor: Reactor,
        on_inventory: Callable[[tuple[Gpu, ...], str], None],
        on_fault: Callable[[GpuFault], None],
        on_gpu_error: Callable[[str, str], None] = ignored,
        *,
        on_event: Callable[[GpuEvent], None] = discarded,
        on_samples: Callable[[tuple[Sample, ...]], None] = discarded,
        on_processes: Callable[[tuple[GpuProcesses, ...]], None] = discarded,
        on_unreadable: Callable[[tuple[UnreadableGpu, ...]], None] = discarded,
        spawned: subprocess.Popen[bytes] | None = None,
        machine: Machine | None = None,
        patience: ProbeTimeouts | None = None,
    ) -> None:
        self._reactor = reactor
        self._on_inventory = on_inventory
        self._on_fault = on_fault
        self._on_gpu_error = on_gpu_error
        self._on_event = on_event
        self._on_samples = on_samples
        self._on_processes = on_processes
        self._on_unreadable = on_unreadable
        self.calls = CallCounts()
        self._measure_every = MEASURE_EVERY
        self._memory: dict[str, int | None] = {}
        self._told: dict[str, str] = {}
        self._machine = machine or Machine(Starter(reactor, spawned), partial(signs, Path("/")))
        self._patience = patience or ProbeTimeouts()
        self._next = Timer(reactor)
        self._checking = Timer(reactor)
        self._signs: object = None
        self._suspects_end = Timer(reactor)
        self._suspects: dict[str, None] = {}
        self._run: ProbeRun | None = None
        self._attempt = 0
        self._replaced = -math.inf
        self._reported: GpuFault | None = None

    def start(self) -> None:
        """Start the first child; returns at once."""
        self._begin()

    def stop(self) -> Deferred[None]:
        """Stop everything. Takes at most half a second, even if the child hangs."""
        return self._end().addCallback(lambda _gone: None)

    def release(self) -> Deferred[bool]:
        """End the child for RELEASE seconds, so that the driver can be unloaded or a GPU reset.

        The result says whether the driver was released; False: the child hangs in the kernel.
        """
        gone = self._end()
        self._report(GpuFault(GpuFaultKind.RELEASED, f"released for {RELEASE / 60:.0f} minutes"))
        self._next.set(RELEASE, self.acquire)
        return gone

    def acquire(self) -> None:
        """End a release, or the wait for the next retry; without effect while a child runs."""
        if self._run is None:
            self._attempt = 0
            self._begin()

    @property
    def alive(self) -> bool:
        """Whether a child runs, or is to be started."""
        return self._run is not None or self._next.active

    def set_measure_every(self, seconds: float) -> None:
        """Sample every `seconds` from now on."""
        if seconds != self._measure_every:
            self._measure_every = seconds
            if self._run is not None:
                self._run.send(f"measure-every {seconds}")

    def _begin(self) -> None:
        self._next.cancel()
        self._checking.cancel()
        self.calls.started()
        self._run = ProbeRun(
            self._reactor, self._patience, self._received, self._over, self.calls.took
        )
        options = [word for name in self._suspects for word in ("--leave-out", name)]
        options += ["--measure-every", str(self._measure_every)]
        try:
            self._run.start(self._machine.start, options)
        except OSError as error:
            self._over(GpuFault(GpuFaultKind.DIED, f"cannot start the NVML process: {error}"))

    def _end(self) -> Deferred[bool]:
        self._next.cancel()
        self._checking.cancel()
        self._suspects_end.cancel()
        self._suspects = {}
        run, self._run = self._run, None
        return run.end() if run else succeed(_GONE)

    def _received(self, message: Facts) -> None:
        if isinstance(message, Inventory):
            for each in message.gpus:
                self._told.pop(each.uuid, None)
            for gpu, reason in message.refused:
                if self._is_news(gpu, reason):
                    self._log.error("GPU {gpu} is not shared: {reason}", gpu=gpu, reason=reason)
                self._on_gpu_error(gpu, reason)
            self._reported = None
            self._memory = {gpu.uuid: gpu.memory for gpu in message.gpus}
            self._on_unreadable(message.unreadable)
            self._on_inventory(message.gpus, message.driver)
        elif isinstance(message, GpuErrorMessage):
            if self._is_news(message.gpu, message.error):
                self._log.warn("GPU {gpu} failed: {error}", gpu=message.gpu, error=message.error)
            self._on_gpu_error(message.gpu, message.error)
        elif isinstance(message, EventMessage):
            self._on_event(evolve(message.event, count=message.count))
        elif isinstance(message, SamplesMessage):
            self._pass_over(message.odd)
            self._on_samples(message.samples)
        else:
            running = [
                _within_memory(each, self._memory.get(each.uuid)) for each in message.running
            ]
            self._pass_over([*message.odd, *(text for _, odd in running for text in odd)])
            self._on_processes(tuple(each for each, _ in running))

    def _is_news(self, gpu: str, reason: str) -> bool:
        """Whether the log does not have it yet: every child that is started says it again."""
        before, self._told[gpu] = self._told.get(gpu), reason
        return before != reason

    def _pass_over(self, odd: Iterable[str]) -> None:
        for reading in odd:
            self._log.debug("NVML reports an impossible value: {reading}", reading=reading)

    def _over(self, fault: GpuFault | None) -> None:
        run, self._run = self._run, None
        answered = run is not None and run.answered
        if run is not None:
            if run.answered and run.age >= self._patience.steady:
                self._attempt = 0
            self._suspect(run, fault)
        if fault is None:
            self._log.info("The node's GPUs have changed; reading them again")
            # Indexes may refer to other GPUs now.
            self._suspects = {}
            self._next.set(back_off(0), self._begin)
        elif answered and self._accident(fault):
            self._log.warn("Restarting the NVML process: {fault}", fault=fault)
            # In an iteration of its own: the reactor may still hold the old child's descriptors,
            # and would confuse them with the new ones, which have the same numbers.
            self._next.set(0, self._begin)
        else:
            self._report(fault)
            self._next.set(back_off(self._attempt), self._begin)
            self._attempt += 1
            self._signs = self._machine.signs()
            self._checking.set(CHECK_EVERY, self._check)

    def _check(self) -> None:
        """Retry at once if the driver or a GPU has appeared or disappeared meanwhile."""
        if self._machine.signs() != self._signs:
            self._log.info("The driver or its GPUs have changed; reading them again")
            self.acquire()
        else:
            self._checking.set(CHECK_EVERY, self._check)

    def _accident(self, fault: GpuFault) -> bool:
        """Whether a new child may work: the first failure for a while, and not one of NVML."""
        if fault.kind not in (GpuFaultKind.DIED, GpuFaultKind.HUNG):
            return False
        last, self._replaced = self._replaced, self._reactor.seconds()
        return self._replaced - last >= self._patience.steady

    def _suspect(self, run: ProbeRun, fault: GpuFault | None) -> None:
        step = run.suspect
        if fault is None or fault.kind is not GpuFaultKind.HUNG or step is None:
            return
        self._suspects |= dict.fromkeys((step.gpu, str(step.index)))
        self._suspects_end.set(self._patience.suspect, self._forgive)
        self._log.error("Leaving out GPU {gpu}: {fault}", gpu=step.gpu, fault=fault)
        if step.gpu != str(step.index):
            self._on_event(GpuEvent(step.gpu, EventKind.HANG, detail=fault.detail))
        self._on_gpu_error(step.gpu, fault.detail)

    def _forgive(self) -> None:
        """Try the GPUs that were left out again, at the risk of another hang."""
        self._suspects = {}
        if self._run is not None:
            self._run.end()
            self._begin()

    def _report(self, fault: GpuFault) -> None:
        if fault != self._reported:
            self._reported = fault
            self._on_fault(fault)
