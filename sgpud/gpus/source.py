"""Where this node's GPUs and their processes come from: NVML, or a file of fake GPUs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from sgpud.bridge import Reactor
from sgpud.core.gpu.observations import Usage
from sgpud.gpus.nvml.monitor import GpuObserver, NvmlMonitor
from sgpud.gpus.process_locator import ProcessLocator
from sgpud.gpus.usage_watch import UsageWatch

if TYPE_CHECKING:
    from sgpud.gpus.fake.file import FakeNode
    from sgpud.gpus.fake.monitor import FakeMonitor


def source(
    reactor: Reactor,
    fake_gpus: FakeNode | None,
    observer: GpuObserver,
    used: Callable[[Usage], None],
    spawned: subprocess.Popen[bytes] | None = None,
) -> tuple[NvmlMonitor | FakeMonitor, UsageWatch]:
    """The monitor of the GPUs, not started yet, and the watch over their processes.

    `used` gets the processes of every GPU, with their containers. `spawned`: the NVML process, if
    it was started already.
    """
    proc = Path("/proc" if fake_gpus is None else fake_gpus.proc)
    locator = ProcessLocator(proc, ours=fake_gpus is not None)
    usage = UsageWatch(reactor, locator.look, used)
    observer = evolve(observer, processes=usage.sampled)
    if fake_gpus is None:
        return NvmlMonitor(reactor, observer, spawned), usage
    from sgpud.gpus.fake.monitor import FakeMonitor  # noqa: PLC0415 - for tests and demonstrations

    return FakeMonitor(reactor, fake_gpus, observer), usage
