"""Why GPUs cannot be read, what an operator can do about it, and when to retry."""

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
    """The library is installed, but the kernel module does not respond."""
    VERSION_MISMATCH = "version-mismatch"
    """Library and kernel module belong to different driver versions."""
    NO_PERMISSION = "no-permission"
    """sgpud may not open the device nodes."""
    NO_GPU = "no-gpu"
    """Everything works, but there is nothing to share."""
    HUNG = "hung"
    """A call into NVML does not return."""
    DIED = "died"
    """The child process ended on its own."""
    RELEASED = "released"
    """Released on purpose, with `sgpud release`."""
    UNKNOWN = "unknown"
    """NVML reports another error."""


_ADVICE = {
    GpuFaultKind.NO_LIBRARY: (
        "install the driver's libnvidia-ml1; in a container, mount the driver's library folder and"
        " add it to LD_LIBRARY_PATH"
    ),
    GpuFaultKind.NO_DRIVER: (
        "install NVIDIA's driver, or load it with `nvidia-modprobe -c0 -u`; `dmesg` says why the"
        " module does not load; in a container, mount /dev/nvidiactl and /dev/nvidia*"
    ),
    GpuFaultKind.VERSION_MISMATCH: (
        "the driver was upgraded under a loaded kernel module: reboot the node, or stop what uses"
        " the GPUs and reload the nvidia modules; in a container, mount the host's library"
    ),
    GpuFaultKind.NO_PERMISSION: (
        "allow sgpud to open /dev/nvidiactl, /dev/nvidia-uvm and /dev/nvidia0 and up (character"
        " major 195): run it as root, in a container privileged or with these devices"
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
        "look for Xid lines or an out-of-memory kill in `dmesg`, and for the output of the process"
        " in the log; it is restarted automatically"
    ),
    GpuFaultKind.RELEASED: "run `sgpud acquire` when the GPUs are usable again",
    GpuFaultKind.UNKNOWN: (
        "check whether `nvidia-smi` works; in a container that worked before, access to the device"
        " nodes may have been revoked: restart it; otherwise look for Xid lines in `dmesg`"
    ),
}


@frozen
class GpuFault:
    """Why the GPUs cannot be read now. The next inventory ends the fault."""

    kind: GpuFaultKind
    detail: str = ""
    """The message of NVML or the system."""
    gpu: str = ""
    """The GPU that caused it, as UUID or index; empty if unknown."""

    @property
    def advice(self) -> str:
        """What an operator should do."""
        return _ADVICE[self.kind]

    def __str__(self) -> str:
        """All of it in one line."""
        where = f" (GPU {self.gpu})" if self.gpu else ""
        return f"{self.kind.value}{where}: {self.detail}: {self.advice}"


def back_off(attempt: int) -> float:
    """Seconds to wait before retry number `attempt` (from 0): 1, 2, 4 and so on up to 30."""
    return min(BACK_OFF_MOST, BACK_OFF_FIRST * 2.0 ** min(max(attempt, 0), 16))
