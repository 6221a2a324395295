"""Reads the GPUs of this node through pynvml, inside the child process.

This module imports only the standard library: the child must stay small. Every string of NVML may
be bytes, invalid UTF-8 or empty, and every function may be missing in an older driver or binding: a
missing function is a missing feature, never an error.
"""

from __future__ import annotations

import math
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

LONGEST_TEXT = 256
"""Characters of a name that are kept; NVML's own buffers hold 96."""


class InventoryReader:
    """Reads one GPU after the other; `root` is where the node's /sys and /proc are."""

    def __init__(self, nvml: ModuleType, root: str) -> None:
        self._nvml = nvml
        self._root = root

    def versions(self) -> dict[str, str]:
        """The versions of the driver and of NVML, or empty if they are not reported."""
        return {
            "driver": self._text("nvmlSystemGetDriverVersion"),
            "nvml": self._text("nvmlSystemGetNVMLVersion"),
        }

    def count(self) -> int:
        """How many physical GPUs NVML knows; raises NVMLError."""
        return int(self._nvml.nvmlDeviceGetCount())

    def handle(self, index: int) -> tuple[Any, str]:
        """NVML's handle of a physical GPU, and its UUID; raises NVMLError. Touches the GPU."""
        handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
        return handle, self._must("nvmlDeviceGetUUID", handle)

    def facts(self, handle: Any, uuid: str, index: int) -> list[tuple[dict[str, Any], Any]]:
        """What can be shared: the GPU itself, or its MIG instances, each with its handle.

        Raises NVMLError.
        """
        pci = self.pci(handle)
        gpu = {
            "uuid": uuid,
            "index": index,
            "minor": self.optional("nvmlDeviceGetMinorNumber", handle),
            "pci": pci,
            "product": self._text("nvmlDeviceGetName", handle),
            "numa": self._numa(pci),
            "compute": self.optional("nvmlDeviceGetCudaComputeCapability", handle),
            "mig": None,
            **self._memory(handle),
        }
        mode = self.optional("nvmlDeviceGetMigMode", handle)
        return self._instances(handle, gpu) if mode and mode[0] == 1 else [(gpu, handle)]

    def _instances(self, parent: Any, gpu: dict[str, Any]) -> list[tuple[dict[str, Any], Any]]:
        positions = range(self._nvml.nvmlDeviceGetMaxMigDeviceCount(parent))
        found = (self._instance(parent, position, gpu) for position in positions)
        return [instance for instance in found if instance]

    def _instance(
        self, parent: Any, position: int, gpu: dict[str, Any]
    ) -> tuple[dict[str, Any], Any] | None:
        """The instance at a position and its handle, or None if there is none.

        Positions have gaps: instances are created and destroyed in any order, even during a read.
        """
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, position)
            memory = self._memory(handle)
            instance = {
                **gpu,
                **memory,
                "uuid": self._must("nvmlDeviceGetUUID", handle),
                "product": self._profile(handle, gpu, memory["memory"]),
                "mig": {
                    "parent": gpu["uuid"],
                    "gi": nvml.nvmlDeviceGetGpuInstanceId(handle),
                    "ci": nvml.nvmlDeviceGetComputeInstanceId(handle),
                },
            }
        except nvml.NVMLError as error:
            if _code(error) == nvml.NVML_ERROR_NOT_FOUND:
                return None
            raise
        return instance, handle

    def _profile(self, handle: Any, gpu: dict[str, Any], memory: int | None) -> str:
        name = self._text("nvmlDeviceGetName", handle)
        if "MIG" in name:
            return name
        # An older driver returns the parent's name. Profiles are named by memory in eighths.
        slices = self.optional("nvmlDeviceGetAttributes", handle)
        whole = gpu["memory"]
        if not (slices and whole and memory):
            return f"{gpu['product']} MIG"
        eighths = math.ceil(8 * memory / whole) / 8
        gigabytes = round(eighths * math.ceil(whole / 2**30))
        return f"{gpu['product']} MIG {slices.gpuInstanceSliceCount}g.{gigabytes}gb"

    def _memory(self, handle: Any) -> dict[str, int | None]:
        info = self.memory_info(handle)
        if info is None:  # a GPU that shares the host's memory, such as GB10
            return {"memory": None, "reserved": 0}
        return {"memory": int(info.total), "reserved": int(getattr(info, "reserved", 0))}

    def pci(self, handle: Any) -> str:
        """The PCI address as NVML writes it, or empty."""
        info = self.optional("nvmlDeviceGetPciInfo", handle)
        return "" if info is None else text_of(lambda: info.busId)

    def _numa(self, pci: str) -> int | None:
        # Not nvmlDeviceGetNumaNodeId: on coherent machines, that is the node of the GPU's own
        # memory, which has no CPUs for the kubelet to align with.
        domain, _, rest = pci.lower().partition(":")
        try:
            address = f"{int(domain, 16):04x}:{rest}"
            path = os.path.join(self._root, "sys/bus/pci/devices", address, "numa_node")
            with open(path, encoding="ascii") as file:
                node = int(file.read())
        except (OSError, ValueError):
            return None
        return node if node >= 0 else None

    def optional(self, name: str, *args: Any) -> Any:
        """The result of a call, or None if this driver, binding or GPU does not support it."""
        call = getattr(self._nvml, name, None)
        if call is None:
            return None
        try:
            return call(*args)
        except self._nvml.NVMLError as error:
            if self.is_missing(error):
                return None
            raise

    def is_missing(self, error: Exception) -> bool:
        """Whether an NVMLError only says that something is not supported."""
        nvml = self._nvml
        return _code(error) in (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_INVALID_ARGUMENT,
            nvml.NVML_ERROR_NO_PERMISSION,
            nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH,
        )

    def memory_info(self, handle: Any) -> Any:
        """NVML's memory info, version 2 if available; None if it is not reported.

        Only version 2 has `reserved`, and leaves it out of `used`.
        """
        version = getattr(self._nvml, "nvmlMemory_v2", None)
        info = version and self.optional("nvmlDeviceGetMemoryInfo", handle, version)
        return info or self.optional("nvmlDeviceGetMemoryInfo", handle)

    def _text(self, name: str, *args: Any) -> str:
        return text_of(lambda: self.optional(name, *args))

    def _must(self, name: str, *args: Any) -> str:
        return text_of(lambda: getattr(self._nvml, name)(*args))


def text_of(read: Callable[[], object]) -> str:
    """The result of `read` as printable text of at most LONGEST_TEXT characters.

    pynvml decodes strictly; the bytes that failed are in the exception.
    """
    try:
        raw = read()
    except UnicodeDecodeError as error:
        raw = error.object
    if isinstance(raw, bytes):
        raw = raw.decode("utf-8", "replace")
    text = "" if raw is None else str(raw)
    clean = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return clean.strip()[:LONGEST_TEXT]


def error_text(error: Exception) -> str:
    """An NVMLError as text, its number included; never raises."""
    try:
        text = text_of(lambda: str(error))
    except Exception:  # noqa: BLE001 - even fetching the text is a call that can fail
        text = type(error).__name__
    return text if _code(error) is None else f"{text} (NVML error {_code(error)})"


def _code(error: Exception) -> object:
    return getattr(error, "value", None)
