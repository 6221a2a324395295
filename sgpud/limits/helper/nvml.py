"""The three calls of NVML that the helper needs, by ctypes: nvidia-ml-py has them since 13.615.

Whoever calls them may hang in the kernel for ever: only the worker, a process of its own, does.
"""

from __future__ import annotations

import ctypes

from sgpud.limits.helper.cgroups import LimitRefusedError

UNLIMITED = 2**64 - 1
_LIBRARY = "libnvidia-ml.so.1"
_NOT_SUPPORTED, _NOT_FOUND = 3, 6
_MEANINGS = {
    2: ("value", "the driver takes no such limit: more than the GPU has, or less than is in use"),
    _NOT_SUPPORTED: ("unsupported", "the driver cannot limit the memory of this GPU"),
    4: ("permission", "the helper lacks CAP_SYS_ADMIN"),
    _NOT_FOUND: ("unsupported", "this cgroup has no controller dmem"),
    17: ("gone", "the driver cannot open the cgroup"),
}
"""NVML's return codes: what the request ends with."""


class _Set(ctypes.Structure):
    """nvmlSetMemoryLimits_v1_t."""

    _fields_ = (
        ("name_space", ctypes.c_char_p),
        ("soft", ctypes.c_ulonglong),
        ("hard", ctypes.c_ulonglong),
    )


class _Get(ctypes.Structure):
    """nvmlGetMemoryLimits_v1_t."""

    _fields_ = (*_Set._fields_, ("used", ctypes.c_ulonglong))


class Nvml:
    """NVIDIA's library, initialised; LimitRefusedError where that cannot be."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as problem:
            raise LimitRefusedError("unsupported", f"no NVIDIA driver: {problem}") from None
        if not hasattr(self._library, "nvmlDeviceSetMemoryLimits_v1"):
            raise LimitRefusedError("unsupported", "the driver is older than 615")
        self._checked("nvmlInitWithFlags", 0)

    def set(self, gpu: str, path: str, limit: int) -> None:
        """Limit a cgroup to so many bytes, or to UNLIMITED; LimitRefusedError.

        The soft limit stays 0: on dmem it would add up in every ancestor, and never be subtracted.
        """
        asked = _Set(path.encode(), 0, limit)
        self._checked("nvmlDeviceSetMemoryLimits_v1", self._handle(gpu), ctypes.byref(asked))

    def get(self, gpu: str, path: str) -> tuple[int, int]:
        """The limit in bytes, or UNLIMITED, and what is used of it; LimitRefusedError.

        Where a cgroup has no limit of its own, misc tells that of the nearest ancestor with one.
        """
        found = _Get(path.encode(), 0, UNLIMITED, 0)
        handle = self._handle(gpu)
        code = self._library.nvmlDeviceGetMemoryLimits_v1(handle, ctypes.byref(found))
        if code in {_NOT_SUPPORTED, _NOT_FOUND}:
            return UNLIMITED, 0  # what it says where there is no limit, too
        self._check("nvmlDeviceGetMemoryLimits_v1", code)
        return found.hard, found.used

    def _handle(self, gpu: str) -> ctypes.c_void_p:
        handle = ctypes.c_void_p()
        self._checked("nvmlDeviceGetHandleByUUID", gpu.encode(), ctypes.byref(handle))
        return handle

    def _checked(self, name: str, *arguments: object) -> None:
        self._check(name, getattr(self._library, name)(*arguments))

    def _check(self, name: str, code: int) -> None:
        if code == 0:
            return
        kind, detail = _MEANINGS.get(code, ("nvml", f"{name} failed with {code}"))
        if name not in {"nvmlDeviceSetMemoryLimits_v1", "nvmlDeviceGetMemoryLimits_v1"}:
            kind, detail = "nvml", f"{name} failed with {code}"
        raise LimitRefusedError(kind, detail)
