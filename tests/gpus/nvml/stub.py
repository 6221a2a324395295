"""The stub NVML library's script, and a reactor that a test drives until something has happened."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.epollreactor import EPollReactor

from sgpud.gpus.nvml.child import Child, start_child
from sgpud.gpus.nvml.faults import GpuFault
from sgpud.gpus.nvml.messages import Inventory, Message, parse
from sgpud.gpus.nvml.probe.protocol import STATUS

GPU_A = "GPU-aaaaaaaa-1111-2222-3333-000000000000"
GPU_B = "GPU-bbbbbbbb-1111-2222-3333-000000000000"
GPU_C = "GPU-cccccccc-1111-2222-3333-000000000000"
MIG_1 = "MIG-dddddddd-1111-2222-3333-000000000001"
MIG_2 = "MIG-dddddddd-1111-2222-3333-000000000002"

A100 = f"""\
gpu {GPU_A}
  name NVIDIA A100-SXM4-40GB
  minor 1
  pci 00000000:3B:00.0
  memory 42949672960 671088640
  compute 8 0
"""
T4 = f"""\
gpu {GPU_B}
  name Tesla T4
  minor 0
  pci 00000000:86:00.0
  memory 16106127360 0
  compute 7 5
"""
CUT = f"""\
gpu {GPU_C}
  name NVIDIA A100-SXM4-40GB
  minor 2
  pci 00000001:07:00.0
  memory 42949672960 671088640
  compute 8 0
  mig 1
  instance {MIG_1} 1 0 20937965568 3 NVIDIA A100-SXM4-40GB MIG 3g.20gb
  instance {MIG_2} 7 0 5100273664 1
"""
VERSIONS = "driver 580.12\nnvml 12.580.12\n"


@define
class Stub:
    """A machine that the stub library tells of. `write` changes it, also while it is read."""

    script: Path
    library: Path
    """The folder of the built library."""
    root: Path
    """What stands for the node's /proc, /sys and /dev."""

    def write(self, *parts: str) -> None:
        """Replace the script as a whole."""
        new = self.script.with_suffix(".new")
        new.write_text(VERSIONS + "\n".join(parts) + "\n")
        new.replace(self.script)

    @property
    def env(self) -> dict[str, str]:
        """The environment of a process that loads the stub instead of NVIDIA's library."""
        return {**os.environ, "STUB_NVML": str(self.script), "LD_LIBRARY_PATH": str(self.library)}

    def starter(
        self, reactor: EPollReactor, period: float = 0.05
    ) -> Callable[[Sequence[str], Callable[[bytes], None], Callable[[int | None], None]], Child]:
        """What a Monitor takes as `start`: the real child process, on the stub."""

        def start(
            options: Sequence[str],
            on_line: Callable[[bytes], None],
            on_end: Callable[[int | None], None],
        ) -> Child:
            more = ["--period", str(period), "--root", str(self.root), *options]
            return start_child(reactor, more, on_line, on_end, self.env)

        return start


@define
class Bench:
    """A real reactor, run by the test itself until a condition holds."""

    reactor: EPollReactor = field(factory=EPollReactor)

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> None:
        """Run the reactor until the condition holds; an AssertionError after so many seconds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            self._turn()

    def during(self, seconds: float) -> None:
        """Run the reactor for so long: for what must not happen."""
        over: list[str] = []
        self.reactor.callLater(seconds, over.append, "over")
        self.until(lambda: over, seconds + 5)

    def _turn(self) -> None:
        self.reactor.runUntilCurrent()
        due = self.reactor.timeout()
        self.reactor.doIteration(0.05 if due is None else min(due, 0.05))


@define
class Probe:
    """A child process on the stub, and all that it has said."""

    bench: Bench
    said: list[Message] = field(factory=list)
    status: list[int | None] = field(factory=list)
    child: Child | None = None

    def start(self, stub: Stub, *options: str) -> Probe:
        start = stub.starter(self.bench.reactor)
        self.child = start(options, lambda line: self.said.append(parse(line)), self.status.append)
        return self

    def of(self, kind: type[Any]) -> list[Any]:
        return [message for message in self.said if isinstance(message, kind)]

    def inventory(self, number: int = 1) -> Inventory:
        self.bench.until(lambda: len(self.of(Inventory)) >= number or self.status)
        found: Inventory = self.of(Inventory)[number - 1]
        return found

    def fault(self) -> GpuFault:
        self.bench.until(lambda: self.status)
        found: GpuFault = self.of(GpuFault)[0]
        assert self.status == [STATUS[found.kind.value]]
        return found
