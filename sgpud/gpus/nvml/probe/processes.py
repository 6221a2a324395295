"""Lists the processes that use a GPU, inside the child process."""

from __future__ import annotations

from sgpud.gpus.nvml.probe.inventory import error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

    from sgpud.gpus.nvml.probe.inventory import InventoryReader
    from sgpud.gpus.nvml.probe.sampling import PhysicalGpu

KINDS = ("Compute", "Graphics", "MPSCompute")
"""NVML's lists, by kind of process: one process can be in several."""
VERSIONS = ("_v3", "_v2")
"""Versions of the calls, newest first: drivers before 510 lack version 3. pynvml's calls without a
version fail instead of falling back."""
_MOST = 100


class ProcessReader:
    """Lists the processes of one GPU after the other."""

    def __init__(self, nvml: ModuleType, reader: InventoryReader) -> None:
        self._nvml = nvml
        self._reader = reader
        self._seen: dict[str, int] = {}
        """By UUID, the time of the last sample of utilisation, in NVML's microseconds."""

    def of(self, gpu: PhysicalGpu) -> list[dict[str, Any]]:
        """The processes of a GPU, or those of each of its MIG instances."""
        if gpu.parts:
            return [self._one(uuid, handle, whole=False) for uuid, handle in gpu.parts]
        return [self._one(gpu.uuid, gpu.handle, whole=True)]

    def _one(self, uuid: str, handle: Any, *, whole: bool) -> dict[str, Any]:
        """As in protocol.py. An error here is not one of the GPU: its samples report those."""
        try:
            used = self._used(handle)
            busy = self._busy(uuid, handle) if whole and used else None
        except self._nvml.NVMLError as error:
            return {"uuid": uuid, "processes": [], "error": error_text(error)}
        if used is None:
            text = (
                "this driver does not report which processes use the GPU, or requires root for it"
            )
            return {"uuid": uuid, "processes": [], "error": text}
        rows = [
            [pid, memory, None if busy is None else busy.get(pid, 0)]
            for pid, memory in sorted(used.items())
        ]
        return {"uuid": uuid, "processes": rows, "error": ""}

    def _used(self, handle: Any) -> dict[int, int | None] | None:
        """Bytes by process id; None if no list is supported."""
        lists = [found for kind in KINDS if (found := self._list(kind, handle)) is not None]
        if not lists:
            return None
        used: dict[int, int | None] = {}
        for info in (info for each in lists for info in each):
            pid, memory = int(info.pid), info.usedGpuMemory
            known = used.get(pid)
            # Each list that contains a process reports all of its memory.
            used[pid] = known if memory is None else max(int(memory), known or 0)
        return used

    def _list(self, kind: str, handle: Any) -> Any:
        for version in VERSIONS:
            name = f"nvmlDeviceGet{kind}RunningProcesses{version}"
            found = self._reader.optional(name, handle)
            if found is not None:
                return found
        return None

    def _busy(self, uuid: str, handle: Any) -> dict[int, int | None] | None:
        """Percent by process id, of those that ran a kernel since the last call; None: unknown.

        A value above 100, which some drivers return, counts as unknown.
        """
        last = self._seen.get(uuid, 0)
        try:
            samples = self._reader.optional("nvmlDeviceGetProcessUtilization", handle, last)
        except self._nvml.NVMLError as error:
            if getattr(error, "value", None) == self._nvml.NVML_ERROR_NOT_FOUND:
                return {}
            raise
        if samples is None:
            return None
        busy: dict[int, int | None] = {}
        for sample in samples:
            self._seen[uuid] = max(self._seen.get(uuid, 0), int(sample.timeStamp))
            busy[int(sample.pid)] = int(sample.smUtil) if sample.smUtil <= _MOST else None
        return busy
