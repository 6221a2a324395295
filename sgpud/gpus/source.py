"""Where this node's GPUs and their processes come from: NVML, or a simulation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from sgpud.bridge import Readers, Threads
from sgpud.core.gpu import Gpu
from sgpud.core.observation import GpuEvent, Sample
from sgpud.gpus.faults import Fault
from sgpud.gpus.monitor import Monitor
from sgpud.gpus.places import Places
from sgpud.gpus.simulated import SimulatedMonitor
from sgpud.gpus.simulation import Simulation
from sgpud.gpus.usage import UsageWatch


class Reactor(Threads, Readers, Protocol):
    """What is used of Twisted's reactor."""


class Hears(Protocol):
    """What is told of GPUs, as `monitor.Monitor` says."""

    @property
    def inventory(self) -> Callable[[tuple[Gpu, ...], str], None]:
        """Gets every GPU and the driver's version."""

    @property
    def fault(self) -> Callable[[Fault], None]:
        """Gets why nothing can be read."""

    @property
    def error(self) -> Callable[[str, str], None]:
        """Gets a GPU that fails by itself, and why."""

    @property
    def event(self) -> Callable[[GpuEvent], None]:
        """Gets what happens to a GPU."""

    @property
    def samples(self) -> Callable[[tuple[Sample, ...]], None]:
        """Gets a reading of every GPU."""


def source(
    reactor: Reactor, simulation: Simulation | None, hears: Hears
) -> tuple[Monitor | SimulatedMonitor, UsageWatch]:
    """What tells of the GPUs, once it is started, and what knows their processes."""
    usage = UsageWatch(reactor, Places(Path("/proc"), ours=simulation is not None).look)
    seen = (hears.inventory, hears.fault, hears.error)
    more: dict[str, Any] = {
        "on_event": hears.event,
        "on_samples": hears.samples,
        "on_processes": usage.sampled,
    }
    if simulation is None:
        return Monitor(reactor, *seen, **more), usage
    return SimulatedMonitor(reactor, simulation, *seen, **more), usage
