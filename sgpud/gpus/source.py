"""Where the daemon's GPUs come from: the driver, or a file of simulated ones."""

from __future__ import annotations

from typing import Protocol

from sgpud.core.gpu import Gpu
from sgpud.core.observation import GpuEvent, Sample
from sgpud.gpus.child import Reactor
from sgpud.gpus.faults import Fault
from sgpud.gpus.monitor import Monitor
from sgpud.gpus.simulated import SimulatedMonitor
from sgpud.gpus.simulation import Simulation


class Hears(Protocol):
    """What hears of the GPUs, on the reactor."""

    def inventory(self, gpus: tuple[Gpu, ...], driver: str, /) -> None:
        """These are there and can be read."""

    def fault(self, why: Fault, /) -> None:
        """Nothing fresh is to be had of any."""

    def error(self, gpu: str, why: str, /) -> None:
        """One cannot be read."""

    def event(self, event: GpuEvent, /) -> None:
        """Something happened to one."""

    def samples(self, samples: tuple[Sample, ...], /) -> None:
        """Some were measured."""


def monitor(
    reactor: Reactor, simulation: Simulation | None, hears: Hears
) -> Monitor | SimulatedMonitor:
    """The source of GPUs, not started: of the driver's, or of those of a simulation."""
    seen = (hears.inventory, hears.fault, hears.error)
    events, samples = hears.event, hears.samples
    if simulation is None:
        return Monitor(reactor, *seen, on_event=events, on_samples=samples)
    return SimulatedMonitor(reactor, simulation, *seen, on_event=events, on_samples=samples)
