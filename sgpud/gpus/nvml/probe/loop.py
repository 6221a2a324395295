"""The loop of the child process: reads the GPUs, samples them, reports what changed.

Every call that may hang is made in this one thread, after a message that names it.
"""

from __future__ import annotations

import os
import threading
import time

from sgpud.gpus.nvml.probe.events import EventReader
from sgpud.gpus.nvml.probe.failures import ProbeError, explain, nothing
from sgpud.gpus.nvml.probe.inventory import InventoryReader, error_text
from sgpud.gpus.nvml.probe.processes import ProcessReader
from sgpud.gpus.nvml.probe.protocol import EMPTY_MIG, HOT_PLUGGED, PLUGGED, STATUS
from sgpud.gpus.nvml.probe.sampling import PhysicalGpu, Sampler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, NoReturn, Protocol

    class Options(Protocol):
        """What the command line says."""

        leave_out: set[str]
        measure_every: float
        period: float
        root: str


class ProbeLoop:
    """Reads the inventory periodically, samples the GPUs, and reports what changed."""

    def __init__(self, nvml: ModuleType, options: Options, send: Callable[..., None]) -> None:
        self._nvml = nvml
        self._options = options
        self._send = send
        self._wake = threading.Event()
        self._reader = InventoryReader(nvml, options.root)
        self._sampler = Sampler(nvml, self._reader)
        self._processes = ProcessReader(nvml, self._reader)
        self._events = EventReader(nvml, self._reader, send, self._wake.set)
        self._gpus: dict[int, PhysicalGpu] = {}
        self._last: dict[str, Any] = {}
        self._failing: dict[str, str] = {}
        self._errors: dict[str, str] = {}
        self._call = ""
        self._since = 0.0
        self._took: dict[str, tuple[int, float]] = {}
        """By call, how often it was made since the last `end`, and how many seconds it took."""

    def measure_every(self, seconds: float) -> None:
        """Sample every `seconds` from now on; called from another thread."""
        self._options.measure_every = seconds
        self._wake.set()

    def run(self) -> NoReturn:
        """Loop until something ends the process."""
        try:
            self._start()
            self._loop(self._plugged())
        except ProbeError as fault:
            self._end(fault)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the parent reports it
            self._end(ProbeError("unknown", f"{type(error).__name__}: {error_text(error)}"))
        # Not sys.exit: ending the interpreter would unload the library, and can hang in it.
        os._exit(HOT_PLUGGED)

    def _end(self, fault: ProbeError) -> NoReturn:
        self._send("fault", kind=fault.kind, detail=fault.detail)
        os._exit(STATUS[fault.kind])

    def _start(self) -> None:
        self._calls("nvmlInit")
        self._send("begin", call="nvmlInit", gpu=None, index=None)
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise explain(self._nvml, error, self._options.root) from error
        self._events.start()

    def _loop(self, plugged: list[str]) -> None:
        """Read and sample when due, until the driver serves other GPUs."""
        read = sampled = float("-inf")
        while self._plugged() == plugged:
            if self._events.stuck():
                raise ProbeError("hung", "the wait for events hangs")
            self._wake.clear()
            now = time.monotonic()
            urgent, self._events.urgent = self._events.urgent, False
            busy = False
            if urgent or now >= read + self._options.period:
                self._read()
                read, busy = now, True
            healthy = [gpu for gpu in self._known() if gpu.error is None]
            busy = self._events.tend(healthy, self._begin) or busy
            if urgent or now >= sampled + self._options.measure_every:
                self._sample()
                sampled, busy = now, True
            if busy:
                self._report_errors()
                self._calls("")
                self._send("end", took=self._took)
                self._took = {}
            due = min(read + self._options.period, sampled + self._options.measure_every)
            self._wake.wait(max(0.0, min(PLUGGED, due - time.monotonic())))

    def _calls(self, call: str) -> None:
        """Record the time of the previous calls, and start that of the next; `""`: none."""
        now = time.monotonic()
        if self._call:
            times, seconds = self._took.get(self._call, (0, 0.0))
            self._took[self._call] = (times + 1, seconds + now - self._since)
        self._call, self._since = call, now

    def _begin(self, call: str, gpu: PhysicalGpu) -> None:
        self._calls(call)
        self._send("begin", call=call, gpu=gpu.uuid, index=gpu.index)

    def _read(self) -> None:
        """Read all GPUs and report what changed.

        A GPU that goes while it is read looks like one that fails, or like another: what was read
        counts if the driver has as many GPUs after it.
        """
        count, versions = self._count()
        while True:
            found = self._found(count)
            before, (count, versions) = count, self._count()
            if count == before:
                break
        self._report(versions, *found)
        facts, failing, _ = found
        if not facts:
            raise nothing(count, failing, self._options.leave_out)

    def _found(self, count: int) -> tuple[list[dict[str, Any]], dict[str, str], list[Any]]:
        """What can be shared, the errors by GPU, and what cannot be read."""
        facts: list[dict[str, Any]] = []
        failing: dict[str, str] = {}
        unreadable: list[dict[str, Any]] = []
        self._gpus = {index: gpu for index, gpu in self._gpus.items() if index < count}
        for index in range(count):
            gpu = self._gpus.setdefault(index, PhysicalGpu(index, str(index)))
            reason = "a call to it hung: left out for some minutes"
            if not {gpu.uuid, str(index)} & self._options.leave_out:
                self._begin("read", gpu)
                found = self._facts(gpu)
                facts += found
                reason = "" if found else EMPTY_MIG
                if gpu.error is not None:
                    reason = failing[gpu.uuid] = error_text(gpu.error)
            if reason:
                uuid = "" if gpu.uuid == str(index) else gpu.uuid
                unreadable.append({"index": index, "uuid": uuid, "pci": gpu.pci, "reason": reason})
        self._address(unreadable)
        return facts, failing, unreadable

    def _count(self) -> tuple[int, dict[str, str]]:
        """How many GPUs the driver has, and its versions; ProbeError if the driver is gone."""
        self._calls("nvmlDeviceGetCount")
        self._send("begin", call="nvmlDeviceGetCount", gpu=None, index=None)
        try:
            versions = self._reader.versions()
            return self._reader.count(), versions
        except self._nvml.NVMLError as error:
            raise explain(self._nvml, error, self._options.root) from error

    def _facts(self, gpu: PhysicalGpu) -> list[dict[str, Any]]:
        """What can be shared of one GPU; if nothing, its `error` says why."""
        gpu.error = None
        try:
            gpu.handle, gpu.uuid = self._reader.handle(gpu.index)
            if gpu.uuid in self._options.leave_out:
                return []
            found = self._reader.facts(gpu.handle, gpu.uuid, gpu.index)
            gpu.pci = found[0][0]["pci"] if found else self._reader.pci(gpu.handle)
        except self._nvml.NVMLError as error:
            gpu.error = error
            return []
        gpu.parts = [(facts["uuid"], handle) for facts, handle in found if facts["mig"]]
        return [facts for facts, _ in found]

    def _address(self, unreadable: list[dict[str, Any]]) -> None:
        """Find the PCI addresses of GPUs of which NVML reports nothing.

        The driver lists what it serves, and NVML counts in the order of these addresses.
        """
        known = {_short(gpu.pci) for gpu in self._gpus.values() if gpu.pci}
        rest = [address for address in self._plugged() if _short(address) not in known]
        nameless = [entry for entry in unreadable if not entry["pci"]]
        if len(rest) == len(nameless):
            for entry, address in zip(nameless, rest, strict=True):
                entry["pci"] = address

    def _known(self) -> list[PhysicalGpu]:
        """The GPUs with a known UUID that are not left out."""
        out = self._options.leave_out
        return [
            gpu
            for gpu in self._gpus.values()
            if gpu.handle is not None and not {gpu.uuid, str(gpu.index)} & out
        ]

    def _report(
        self,
        versions: dict[str, str],
        gpus: list[dict[str, Any]],
        failing: dict[str, str],
        unreadable: list[dict[str, Any]],
    ) -> None:
        self._report_errors()
        for name, error in failing.items():
            if self._failing.get(name) != error:
                self._send("gpu-error", gpu=name, error=error)
        self._failing = failing
        inventory = {**versions, "gpus": gpus, "unreadable": unreadable}
        if gpus and inventory != self._last:
            self._send("inventory", **inventory)
            self._last = inventory

    def _sample(self) -> None:
        samples: list[dict[str, Any]] = []
        running: list[dict[str, Any]] = []
        for gpu in self._known():
            self._begin("sample", gpu)
            samples += self._sampler.sample(gpu)
            if gpu.uuid not in self._sampler.errors and gpu.error is None:
                self._begin("processes", gpu)
                running += self._processes.of(gpu)
        self._send("samples", gpus=samples)
        self._send("processes", gpus=running)

    def _report_errors(self) -> None:
        """Report the GPUs that have started to fail."""
        found = {**self._events.errors, **self._sampler.errors}
        found |= {gpu.uuid: gpu.error for gpu in self._known() if gpu.error is not None}
        errors = {uuid: error_text(error) for uuid, error in found.items()}
        new = [uuid for uuid, error in errors.items() if self._errors.get(uuid) != error]
        if new and self._count()[0] != len(self._gpus):
            # A GPU that goes fails on its way; which one it is, a new reading shows.
            self._events.urgent = True
            self._wake.set()
            return
        for uuid in new:
            self._send("error", gpu=uuid, error=errors[uuid])
        self._errors = errors

    def _plugged(self) -> list[str]:
        """The PCI addresses that the driver serves; changes when a GPU is added or removed."""
        try:
            return sorted(os.listdir(os.path.join(self._options.root, "proc/driver/nvidia/gpus")))
        except OSError:
            return []


def _short(pci: str) -> str:
    """A PCI address without the domain's leading zeros, of which NVML and the kernel differ."""
    return pci.lower().lstrip("0")
