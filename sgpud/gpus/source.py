"""Where this node's GPUs and their processes come from: NVML, or a file of fake GPUs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from sgpud.bridge import Reactor
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import GpuEvent, Sample
from sgpud.gpus.fake.file import FakeNode
from sgpud.gpus.fake.monitor import FakeMonitor
from sgpud.gpus.nvml.faults import GpuFault
from sgpud.gpus.nvml.monitor import NvmlMonitor
from sgpud.gpus.process_locator import ProcessLocator
from sgpud.gpus.usage_watch import UsageWatch


class GpuObserver(Protocol):
    """What is told of GPUs, as `monitor.Monitor` says."""

    @property
    def inventory(self) -> Callable[[tuple[Gpu, ...], str], None]:
        """Gets every GPU and the driver's version."""

    @property
    def fault(self) -> Callable[[GpuFault], None]:
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
    reactor: Reactor, fake_gpus: FakeNode | None, hears: GpuObserver
) -> tuple[NvmlMonitor | FakeMonitor, UsageWatch]:
    """What tells of the GPUs, once it is started, and what knows their processes."""
    usage = UsageWatch(reactor, ProcessLocator(Path("/proc"), ours=fake_gpus is not None).look)
    seen = (hears.inventory, hears.fault, hears.error)
    more: dict[str, Any] = {
        "on_event": hears.event,
        "on_samples": hears.samples,
        "on_processes": usage.sampled,
    }
    if fake_gpus is None:
        return NvmlMonitor(reactor, *seen, **more), usage
    return FakeMonitor(reactor, fake_gpus, *seen, **more), usage
