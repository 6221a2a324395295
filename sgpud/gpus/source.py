"""Where this node's GPUs and their processes come from: NVML, or a file of fake GPUs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sgpud.bridge import Reactor
from sgpud.core.gpu.gpu import Gpu, UnreadableGpu
from sgpud.core.gpu.observations import GpuEvent, Sample, Usage
from sgpud.gpus.nvml.faults import GpuFault
from sgpud.gpus.process_locator import ProcessLocator
from sgpud.gpus.usage_watch import UsageWatch

if TYPE_CHECKING:
    from sgpud.gpus.fake.file import FakeNode
    from sgpud.gpus.fake.monitor import FakeMonitor
    from sgpud.gpus.nvml.monitor import NvmlMonitor


class GpuObserver(Protocol):
    """Observes GPUs: the callbacks of `nvml.monitor.NvmlMonitor`."""

    @property
    def inventory(self) -> Callable[[tuple[Gpu, ...], str], None]:
        """Gets every GPU and the driver's version."""

    @property
    def fault(self) -> Callable[[GpuFault], None]:
        """Gets why no GPU can be read."""

    @property
    def error(self) -> Callable[[str, str], None]:
        """Gets a GPU that fails on its own, and why."""

    @property
    def unreadable(self) -> Callable[[tuple[UnreadableGpu, ...]], None]:
        """Gets the GPUs that cannot be shared, and why, with each inventory."""

    @property
    def event(self) -> Callable[[GpuEvent], None]:
        """Gets an event of a GPU."""

    @property
    def samples(self) -> Callable[[tuple[Sample, ...]], None]:
        """Gets a reading of every GPU."""

    @property
    def usage(self) -> Callable[[Usage], None]:
        """Gets the processes of every GPU, with their containers."""


def source(
    reactor: Reactor,
    fake_gpus: FakeNode | None,
    observer: GpuObserver,
    spawned: subprocess.Popen[bytes] | None = None,
) -> tuple[NvmlMonitor | FakeMonitor, UsageWatch]:
    """The monitor of the GPUs, not started yet, and the watch over their processes.

    `spawned`: the NVML process, if it was started already.
    """
    proc = Path("/proc" if fake_gpus is None else fake_gpus.proc)
    locator = ProcessLocator(proc, ours=fake_gpus is not None)
    usage = UsageWatch(reactor, locator.look, observer.usage)
    seen = (observer.inventory, observer.fault, observer.error)
    more: dict[str, Any] = {
        "on_event": observer.event,
        "on_samples": observer.samples,
        "on_processes": usage.sampled,
    }
    # Each start needs one of the two.
    if fake_gpus is None:
        from sgpud.gpus.nvml.monitor import NvmlMonitor  # noqa: PLC0415

        more |= {"on_unreadable": observer.unreadable, "spawned": spawned}
        return NvmlMonitor(reactor, *seen, **more), usage
    from sgpud.gpus.fake.monitor import FakeMonitor  # noqa: PLC0415

    return FakeMonitor(reactor, fake_gpus, *seen, **more), usage
