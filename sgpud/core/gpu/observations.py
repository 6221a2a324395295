"""Observations of a GPU: events, samples and processes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import field, frozen


class EventKind(Enum):
    """What happened."""

    XID = "xid"
    """The driver reported an XID; `number` is which."""
    ECC = "ecc"
    """A double-bit ECC error."""
    ERROR = "error"
    """An NVML call for this GPU failed; `detail` names the error."""
    HANG = "hang"
    """A call for this GPU does not return."""


@frozen
class GpuEvent:
    """Something that happened to one GPU."""

    uuid: str
    """The physical GPU's UUID, also for its MIG instances."""
    kind: EventKind
    number: int = 0
    gi: int | None = None
    """The affected GPU instance; None: the whole GPU with all its instances."""
    ci: int | None = None
    detail: str = ""
    count: int = 1
    """How many identical events came in one burst."""


@frozen
class Sample:
    """One reading of one GPU (of one MIG instance, for memory). None: not reported by NVML."""

    uuid: str
    used: int | None = None
    """Bytes of memory in use, without the driver's reserve."""
    total: int | None = None
    """Bytes of memory in all."""
    utilisation: int | None = None
    """Percent of the last sampling period in which a kernel ran; None on MIG."""
    recovery: int | None = None
    """NVML's recovery action (field 230): 0 none, 1 GPU reset, 2 node reboot, 3 drain P2P, 4 drain
    and reset, 5 recover IMEX domain, 6 bus reset, 7 system reboot."""
    ecc: int | None = None
    """Uncorrected ECC errors since the driver was loaded."""
    ecc_total: int | None = None
    """The same over the GPU's life."""
    remap_pending: bool | None = None
    """Whether a row of its memory is remapped with the next reset."""
    remap_failed: bool | None = None
    """Whether a row could not be remapped."""
    error: str = ""
    """The NVML error of a failed reading: such a sample is a failed probe."""


@frozen
class GpuProcess:
    """One process with a context on a GPU, as NVML reports it."""

    pid: int
    """In the PID namespace of the process that asked NVML."""
    used: int | None = None
    """Bytes of the GPU's memory; None: not reported by NVML."""
    utilisation: int | None = None
    """Percent of the sampling period in which its kernels ran; None: not reported by NVML, as
    always on MIG."""


@frozen
class GpuProcesses:
    """The processes of one GPU, or of one MIG instance."""

    uuid: str
    processes: tuple[GpuProcess, ...] = ()
    problem: str = ""
    """Why NVML does not report them; `processes` is meaningless then."""


@frozen
class ProcessOwner:
    """Where a process is."""

    pods: tuple[str, ...] = ()
    """UIDs of the pods in whose cgroups it is, the outermost first: several if a kubelet itself
    runs in a pod."""
    container: str = ""
    """The container's name, or empty."""
    container_id: str = ""
    """The id from the container runtime, or empty."""
    cgroup: str = ""
    """The path of its cgroup, as seen by this process."""
    command: str = ""
    """The name of its program, at most 15 characters."""
    own: bool = False
    """Whether it is in sgpud's own pod, whose UID sgpud's cgroup namespace hides."""
    problem: str = ""
    """Why its pod cannot be determined, or empty."""


@frozen
class Usage:
    """The processes of every GPU at one moment."""

    at: float
    """When NVML reported them, in seconds of the monotonic clock."""
    running: Mapping[str, GpuProcesses] = field(factory=dict)
    """By the UUID of the GPU."""
    places: Mapping[int, ProcessOwner] = field(factory=dict)
    """By process id. A process that has ended since is missing, and no longer counts."""
    problem: str = ""
    """Why NVML reported only some processes, or empty."""
