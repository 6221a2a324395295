"""What the doctor knows of a node. Every value is frozen; the checks see nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from attrs import field, frozen

from sgpud.core.allocation.injection import InjectionChoice, NodeHost
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.limits.settings import LimitSettings
from sgpud.core.sharing.rules import Sharing


class Severity(IntEnum):
    """How bad a finding is; the worst one decides the exit status."""

    GOOD = 0
    """As it should be."""
    NOTE = 1
    """Worth knowing; nothing is wrong."""
    WARNING = 2
    """It works now, or for some pods, and will hurt."""
    ERROR = 3
    """Pods do not get their GPUs, or get the wrong ones."""


@frozen
class Finding:
    """What one look at the node gave."""

    check: str
    """What was looked at: driver, devices, runtime, cdi, kubelet, rivals, cgroup, …"""
    severity: Severity
    what: str
    """What was found."""
    means: str = ""
    """What follows from it; empty where it is good."""
    todo: str = ""
    """What a person should do."""


@frozen
class DriverFacts:
    """NVIDIA's driver, as the kernel, the files and NVML tell of it."""

    kernel: str = ""
    """Version of the loaded kernel module, as the kernel tells; empty: it does not."""
    nvml: str = ""
    """Version of the driver as NVML tells it; empty: it does not."""
    libraries: Mapping[str, str] = field(factory=dict)
    """Versions of libnvidia-ml, by path."""
    fault: str = ""
    """What NVML fails with, or empty."""
    advice: str = ""
    """What to do about the fault."""
    errors: Mapping[str, str] = field(factory=dict)
    """By GPU, why it cannot be read."""
    gpus: tuple[Gpu, ...] = ()

    @property
    def version(self) -> str:
        """The version of the driver, by whichever source tells it; the kernel's first."""
        return self.kernel or self.nvml

    @property
    def real(self) -> tuple[Gpu, ...]:
        """The GPUs that are not fake."""
        return tuple(gpu for gpu in self.gpus if not gpu.fake)


@frozen
class RuntimeFacts:
    """The container runtime, and its configuration."""

    sockets: tuple[str, ...] = ()
    """Of container runtimes."""
    configs: tuple[str, ...] = ()
    """containerd's configuration files that could be read."""
    unreadable: Mapping[str, str] = field(factory=dict)
    """Why a configuration could not be read, by path."""
    cdi: bool | None = None
    """enable_cdi of containerd; None: not set."""
    modern: bool = False
    """Whether containerd's configuration is of version 3: CDI is on unless it says otherwise."""
    default: str = ""
    """containerd's default runtime, where it names one."""
    by_mounts: bool | None = None
    """accept-nvidia-visible-devices-as-volume-mounts of NVIDIA's runtime; None: not set."""
    by_variable: bool | None = None
    """accept-nvidia-visible-devices-envvar-when-unprivileged; None: not set, which means true."""


@frozen
class DeviceFacts:
    """What is there for handing GPUs over."""

    host: NodeHost = field(factory=NodeHost)
    chosen: InjectionChoice | None = None
    """The method that sgpud takes; None: without a configuration nobody can tell."""
    links_missing: tuple[str, ...] = ()
    """/dev/char entries that existing device nodes lack."""
    specs: Mapping[str, tuple[str, ...]] = field(factory=dict)
    """CDI specs of the configured kind, each with the driver versions that it names."""
    named: Mapping[str, int] = field(factory=dict)
    """How many GPUs of this node each of these specs names rightly."""
    conflicts: tuple[str, ...] = ()
    """CDI names that two files of one folder define."""
    unreadable: tuple[str, ...] = ()
    """Why a spec of this kind was ignored."""
    unknown: tuple[str, ...] = ()
    """Why a file was ignored of which not even the kind is known."""
    libcuda: bool = False
    """Whether one of the configured mounts has CUDA's library."""


@frozen
class KubeletFacts:
    """The kubelet's folder and sockets."""

    directory: str
    directory_state: str
    """`there`, `absent`, or what it is instead."""
    socket: str
    """`answers`, `absent`, or why it does not answer."""
    pod_resources_path: str
    pod_resources: str
    """As `socket`."""
    elsewhere: tuple[str, ...] = ()
    """Plugin directories with a kubelet.sock at other usual places."""
    checkpoint_problem: str = ""
    registered: Mapping[str, tuple[str, ...]] = field(factory=dict)
    """The ids that each resource had registered, as the kubelet's checkpoint says."""
    drivers: tuple[str, ...] = ()
    """Sockets of DRA drivers for NVIDIA's GPUs in the kubelet's plugins_registry."""
    unordered: tuple[str, ...] = ()
    """The kubelet's systemd units before which sgpud.service does not start."""


@frozen
class ConfigurationFacts:
    """The configuration file."""

    file: str
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    sharing: Sharing | None = None
    """None where the file is bad."""
    limits: LimitSettings = field(factory=LimitSettings)
    listen: str = ""
    """`[http] listen`; empty: no HTTP."""


@frozen
class DraFacts:
    """The cluster, as far as a driver of Dynamic Resource Allocation needs it."""

    used: bool = False
    """Whether [kubelet] api is "dra"; nothing else was looked at if not."""
    problem: str = ""
    """Why the API server cannot be asked, or empty."""
    version: tuple[int, int] = (0, 0)
    """Of Kubernetes."""
    classes: Mapping[str, str] = field(factory=dict)
    """By resource: `there`, `absent`, or why nobody can tell."""
    allocatable: Mapping[str, str] = field(factory=dict)
    """What the Node shows as allocatable of each resource."""


@frozen
class NodeFacts:
    """All of it."""

    configuration: ConfigurationFacts
    driver: DriverFacts
    devices: DeviceFacts
    runtime: RuntimeFacts
    kubelet: KubeletFacts
    dra: DraFacts = field(factory=DraFacts)
    cgroup: str = ""
    """`v2`, `v1`, `hybrid`, or empty where none is mounted."""
    view: Mapping[str, Any] | None = None
    """The status document of the daemon that runs; None: none answers."""
    network: bool = True
    """Whether sgpud.service has the network of the node; true where it is no unit here."""
    silence: str = ""
    """Why none answers."""
