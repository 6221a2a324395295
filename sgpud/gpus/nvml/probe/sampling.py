"""Measures the GPUs through pynvml, inside the child process: memory, use, health counters."""

from __future__ import annotations

from sgpud.gpus.nvml.probe.inventory import error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import ModuleType
    from typing import Any

    from sgpud.gpus.nvml.probe.inventory import InventoryReader

RECOVERY_ACTION = 230
"""NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, which older bindings do not name."""
_SUCCESS = 0
_VALUES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
_UNKNOWN = {
    "used": None,
    "total": None,
    "utilisation": None,
    "recovery": None,
    "ecc": None,
    "ecc_total": None,
    "remap": None,
}


class PhysicalGpu:
    """One physical GPU: its handle, and the last result of reading it."""

    def __init__(self, index: int, uuid: str) -> None:
        self.index = index
        self.uuid = uuid
        self.handle: Any = None
        self.parts: list[tuple[str, Any]] = []
        """UUID and handle of each MIG instance."""
        self.error: Exception | None = None
        """Why it could not be read."""
        self.pci = ""
        """Its PCI address as NVML writes it, once it was read."""


class Sampler:
    """Samples one GPU after the other."""

    def __init__(self, nvml: ModuleType, reader: InventoryReader) -> None:
        self._nvml = nvml
        self._reader = reader
        self.errors: dict[str, Exception] = {}
        """By UUID of the physical GPU, the error of its last sample."""

    def sample(self, gpu: PhysicalGpu) -> Iterator[dict[str, Any]]:
        """The sample of a GPU, and one for the memory of each of its MIG instances."""
        self.errors.pop(gpu.uuid, None)
        if gpu.error is not None:
            text = error_text(gpu.error)
            yield from ({"uuid": uuid, **_UNKNOWN, "error": text} for uuid in _names(gpu))
            return
        yield from self._one(gpu, gpu.uuid, gpu.handle)
        for uuid, handle in gpu.parts:
            yield from self._one(gpu, uuid, handle)

    def _one(self, gpu: PhysicalGpu, uuid: str, handle: Any) -> Iterator[dict[str, Any]]:
        found: dict[str, Any] = {"uuid": uuid, **_UNKNOWN, "error": ""}
        whole = uuid == gpu.uuid
        readings: list[Callable[[Any], dict[str, Any]]] = [self._memory]
        if whole:
            readings += [self._recovery, self._ecc, self._remap]
            readings += [] if gpu.parts else [self._utilisation]
        # A reading that fails leaves the others as they are.
        errors = [error for read in readings if (error := self._read(read, handle, found))]
        for error in errors[:1]:
            if not whole and getattr(error, "value", None) == self._nvml.NVML_ERROR_NOT_FOUND:
                # Destroyed since the inventory was read: the next one shows it.
                return
            found["error"] = error_text(error)
            self.errors[gpu.uuid] = error
        yield found

    def _read(
        self, read: Callable[[Any], dict[str, Any]], handle: Any, found: dict[str, Any]
    ) -> Exception | None:
        """Add a reading to those found; the error that it ends with, or None."""
        try:
            found |= read(handle)
        except self._nvml.NVMLError as error:
            reason: Exception = error
            return reason
        return None

    def _memory(self, handle: Any) -> dict[str, int | None]:
        info = self._reader.memory_info(handle)
        return {"used": int(info.used), "total": int(info.total)} if info else {}

    def _utilisation(self, handle: Any) -> dict[str, int | None]:
        rates = self._reader.optional("nvmlDeviceGetUtilizationRates", handle)
        return {"utilisation": None if rates is None else int(rates.gpu)}

    def _ecc(self, handle: Any) -> dict[str, int | None]:
        nvml = self._nvml
        kind = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
        counters = {"ecc": nvml.NVML_VOLATILE_ECC, "ecc_total": nvml.NVML_AGGREGATE_ECC}
        return {
            name: self._reader.optional("nvmlDeviceGetTotalEccErrors", handle, kind, counter)
            for name, counter in counters.items()
        }

    def _remap(self, handle: Any) -> dict[str, list[bool] | None]:
        """Whether a row waits to be remapped, and whether one could not be."""
        rows = self._reader.optional("nvmlDeviceGetRemappedRows", handle)
        return {"remap": None if rows is None else [bool(rows[2]), bool(rows[3])]}

    def _recovery(self, handle: Any) -> dict[str, int | None]:
        values = self._reader.optional("nvmlDeviceGetFieldValues", handle, [RECOVERY_ACTION])
        if values is None:
            return {}
        value = values[0]
        if value.nvmlReturn == _SUCCESS:
            return {"recovery": int(getattr(value.value, _VALUES[value.valueType]))}
        error = self._nvml.NVMLError(value.nvmlReturn)
        if self._reader.is_missing(error):
            return {}
        raise error


def _names(gpu: PhysicalGpu) -> Iterable[str]:
    return (gpu.uuid, *(uuid for uuid, _ in gpu.parts))
