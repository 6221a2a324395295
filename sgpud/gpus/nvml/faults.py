"""Why there are no GPUs, what a person can do about it, and when it is tried again."""

from __future__ import annotations

from enum import Enum

from attrs import frozen

BACK_OFF_FIRST = 1.0
BACK_OFF_MOST = 30.0


class GpuFaultKind(Enum):
    """What keeps the GPUs from being read."""

    NO_LIBRARY = "no-library"
    """libnvidia-ml.so.1 cannot be loaded."""
    NO_DRIVER = "no-driver"
    """The library is there, the kernel module does not answer."""
    VERSION_MISMATCH = "version-mismatch"
    """Library and kernel module are of different driver versions."""
    NO_PERMISSION = "no-permission"
    """The device nodes may not be opened."""
    NO_GPU = "no-gpu"
    """Everything works, and there is nothing to share."""
    HUNG = "hung"
    """A call into NVML does not come back."""
    DIED = "died"
    """The child process ended by itself."""
    RELEASED = "released"
    """Let go on purpose, with `sgpud release`."""
    UNKNOWN = "unknown"
    """NVML gives another error."""


_ADVICE = {
    GpuFaultKind.NO_LIBRARY: (
        "install the driver's libnvidia-ml1, or in a container mount the driver's library folder"
        " and name it in LD_LIBRARY_PATH"
    ),
    GpuFaultKind.NO_DRIVER: (
        "install NVIDIA's driver, or load it with `nvidia-modprobe -c0 -u`; `dmesg` says why the"
        " module does not load; in a container mount /dev/nvidiactl and /dev/nvidia*"
    ),
    GpuFaultKind.VERSION_MISMATCH: (
        "the driver was upgraded under a loaded kernel module: reboot the node, or stop what uses"
        " the GPUs and load the nvidia modules again; in a container mount the host's library"
    ),
    GpuFaultKind.NO_PERMISSION: (
        "let sgpud open /dev/nvidiactl, /dev/nvidia-uvm and /dev/nvidia0 and following (character"
        " major 195): run it as root, and in a container privileged or with those devices"
    ),
    GpuFaultKind.NO_GPU: (
        "check that `nvidia-smi -L` lists a GPU; a GPU in MIG mode needs MIG instances"
        " (`nvidia-smi mig -cgi … -C`); on a node without GPUs do not run sgpud"
    ),
    GpuFaultKind.HUNG: (
        "look for Xid lines in `dmesg`; drain the node and reset the GPU (`nvidia-smi -r`), or"
        " reboot if `nvidia-smi` hangs too"
    ),
    GpuFaultKind.DIED: (
        "look for Xid lines or an out-of-memory kill in `dmesg`, and in the log for what the"
        " process said; it is started again by itself"
    ),
    GpuFaultKind.RELEASED: "run `sgpud acquire` when the GPUs can be used again",
    GpuFaultKind.UNKNOWN: (
        "see whether `nvidia-smi` works; in a container that worked before, access to the device"
        " nodes may have been taken away: start it again; else look for Xid lines in `dmesg`"
    ),
}


@frozen
class GpuFault:
    """Why the GPUs cannot be read now. An inventory that comes later ends it."""

    kind: GpuFaultKind
    detail: str = ""
    """What NVML or the system said."""
    gpu: str = ""
    """The GPU that it began with, as UUID or index; empty where that is not known."""

    @property
    def advice(self) -> str:
        """What a person should do."""
        return _ADVICE[self.kind]

    def __str__(self) -> str:
        """The whole of it in one line."""
        where = f" (GPU {self.gpu})" if self.gpu else ""
        return f"{self.kind.value}{where}: {self.detail}: {self.advice}"


def back_off(attempt: int) -> float:
    """Seconds to wait before try number `attempt` (from 0): 1, 2, 4 and so on up to 30."""
    return min(BACK_OFF_MOST, BACK_OFF_FIRST * 2.0 ** min(max(attempt, 0), 16))
