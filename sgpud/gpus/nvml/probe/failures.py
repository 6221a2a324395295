"""Why the child process can read nothing, derived from NVML's errors."""

from __future__ import annotations

import ctypes
import os

from sgpud.gpus.nvml.probe.inventory import error_text, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


class ProbeError(Exception):
    """Why nothing can be read; ends the process."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


def explain(nvml: ModuleType, error: Exception, root: str) -> ProbeError:
    """The fault behind an NVMLError of a call that concerns no particular GPU."""
    text = error_text(error)
    kinds = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "no-library",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "no-driver",
        nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "version-mismatch",
        nvml.NVML_ERROR_NO_PERMISSION: "no-permission",
        nvml.NVML_ERROR_NOT_FOUND: "no-gpu",
    }
    kind = kinds.get(getattr(error, "value", None), "unknown")
    if kind == "no-library":
        return ProbeError(kind, _why_not_loaded() or text)
    control = _opened(os.path.join(root, "dev/nvidiactl"))
    if control.startswith("not permitted") and kind in ("unknown", "no-driver"):
        kind = "no-permission"
    if kind == "version-mismatch":
        text += f"; {_library(nvml)}"
    return ProbeError(kind, f"{text}; {_module(root)}; /dev/nvidiactl: {control}")


def nothing(count: int, errors: dict[str, str], left_out: set[str]) -> ProbeError:
    """The fault of a driver that finds `count` GPUs, none of which can be shared."""
    if errors:
        texts = "; ".join(f"GPU {name}: {error}" for name, error in errors.items())
        return ProbeError("unknown", f"no GPU responds: {texts}")
    if count and left_out:
        left = ", ".join(sorted(left_out))
        return ProbeError("hung", f"every GPU is left out after a call that hung: {left}")
    if count:
        return ProbeError("no-gpu", f"{count} in MIG mode, but no MIG instances")
    return ProbeError("no-gpu", "the driver is loaded but finds no GPU")


def _why_not_loaded() -> str:
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError as error:
        return str(error)
    return ""


def _library(nvml: ModuleType) -> str:
    """The version of the library, which tells it without a driver as well."""
    try:
        return f"NVML library {text_of(nvml.nvmlSystemGetNVMLVersion) or 'of unknown version'}"
    except nvml.NVMLError:
        return "NVML library of unknown version"


def _module(root: str) -> str:
    try:
        with open(os.path.join(root, "proc/driver/nvidia/version"), encoding="utf-8") as file:
            version = file.read().splitlines()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        return "the kernel module nvidia is not loaded"
    return f"loaded kernel module: {' '.join(version.split())[:120]}"


def _opened(node: str) -> str:
    try:
        os.close(os.open(node, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return "missing"
    except PermissionError as error:
        return f"not permitted ({error.strerror})"
    except OSError as error:
        return str(error.strerror)
    return "opens"
