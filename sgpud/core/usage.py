"""What runs on the GPUs: processes as NVML tells of them, and where each of them is."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen


@frozen
class Process:
    """One process with a context on a GPU, as NVML tells of it."""

    pid: int
    """In the PID namespace of the process that asked NVML."""
    used: int | None = None
    """Bytes of the GPU's memory; None: NVML does not tell."""
    utilisation: int | None = None
    """Percent of the sampling period in which a kernel of it ran; None: NVML does not tell, which
    it never does on a MIG instance."""


@frozen
class Running:
    """The processes of one GPU, or of one MIG instance."""

    uuid: str
    processes: tuple[Process, ...] = ()
    problem: str = ""
    """Why NVML does not tell; `processes` then means nothing."""


@frozen
class Place:
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
    running: Mapping[str, Running] = field(factory=dict)
    """By the UUID of the GPU."""
    places: Mapping[int, Place] = field(factory=dict)
    """By process id. One that has ended since is not here, and counts no more."""
    problem: str = ""
    """Why NVML told of some processes only, or empty."""
