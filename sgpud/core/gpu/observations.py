"""What is observed of a GPU: events, samples, and the processes on it."""

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
    """A call for this GPU does not come back."""


@frozen
class GpuEvent:
    """Something that happened to one GPU."""

    uuid: str
    """The physical GPU's UUID, also where one of its MIG instances is meant."""
    kind: EventKind
    number: int = 0
    gi: int | None = None
    """The GPU instance that it concerns; None: the whole GPU with all its instances."""
    ci: int | None = None
    detail: str = ""
    count: int = 1
    """How many of the same came in one burst."""


@frozen
class Sample:
    """One reading of one GPU (of one MIG instance, for memory). None: NVML does not tell."""

    uuid: str
    used: int | None = None
    """Bytes of memory in use, the driver's own reserve left out."""
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
    """The NVML error that a reading ended with: such a sample is a failed probe."""


@frozen
class GpuProcess:
    """One process with a context on a GPU, as NVML tells of it."""

    pid: int
    """In the PID namespace of the process that asked NVML."""
    used: int | None = None
    """Bytes of the GPU's memory; None: NVML does not tell."""
    utilisation: int | None = None
    """Percent of the sampling period in which a kernel of it ran; None: NVML does not tell, which
    it never does on a MIG instance."""


@frozen
class GpuProcesses:
    """The processes of one GPU, or of one MIG instance."""

    uuid: str
    processes: tuple[GpuProcess, ...] = ()
    problem: str = ""
    """Why NVML does not tell; `processes` then means nothing."""


@frozen
class ProcessOwner:
    """Where a process is."""

    pods: tuple[str, ...] = ()
    """UIDs of the pods in whose cgroups it is, the outermost first: more than one where a kubelet
    itself runs in a pod."""
    container: str = ""
    """The container's name, or empty."""
    container_id: str = ""
    """The id that the container runtime gave it, or empty."""
    cgroup: str = ""
    """The path of its cgroup, as this process sees it."""
    command: str = ""
    """The name of its program, at most 15 characters of it."""
    own: bool = False
    """Whether it is in sgpud's own pod, of which sgpud's cgroup namespace hides the UID."""
    problem: str = ""
    """Why it cannot be told whether it is in a pod, or in which, or empty."""


@frozen
class Usage:
    """The processes of every GPU at one moment."""

    at: float
    """When NVML told of them, in seconds of the monotonic clock."""
    running: Mapping[str, GpuProcesses] = field(factory=dict)
    """By the UUID of the GPU."""
    places: Mapping[int, ProcessOwner] = field(factory=dict)
    """By process id. One that has ended since is not here, and counts no more."""
    problem: str = ""
    """Why NVML told of some processes only, or empty."""
