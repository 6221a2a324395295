"""How a container is given its GPUs: the method for the node, and the answer for one container."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import field, frozen

from sgpud.core.gpu.gpu import Gpu
from sgpud.core.limits.caps import CAP_KIND, cap_device, cap_variables
from sgpud.core.sharing.rules import HostMount, InjectionMethod, InjectionSettings

VISIBLE = "NVIDIA_VISIBLE_DEVICES"
WAYS_OUT = (
    "Make a CDI spec (`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`), install"
    " nvidia-container-toolkit, or set [container] mounts to the driver's folder (to [] if the"
    " images bring the driver's libraries)"
)
"""What makes one of the methods work, whatever the node is."""
VOLUME_ROOT = "/var/run/nvidia-container-devices"
"""Where NVIDIA's runtime looks for GPUs named by mounts; the variable then holds this path."""


@frozen
class DeviceNode:
    """One device node of the host and where a container sees it."""

    host: str
    container: str
    permissions: str = "mrw"


@frozen
class GpuAccess:
    """What the node has for handing over one GPU, and the reason for what it lacks."""

    nodes: tuple[DeviceNode, ...] = ()
    nodes_missing: str = ""
    """Why the device nodes cannot be used, or empty."""
    cdi: str = ""
    """The fully qualified CDI name, e.g. `nvidia.com/gpu=GPU-…`, or empty."""
    cdi_missing: str = ""
    """Why there is no CDI name, or empty."""
    limited: bool = False
    """Whether that name brings the toolkit's hook for memory limits."""


@frozen
class NodeHost:
    """What is on the node for handing GPUs over."""

    runtime: str = ""
    """Why NVIDIA's container runtime counts as installed (what was found), or empty."""
    volume_mounts: bool = False
    """Whether that runtime is configured to take GPUs that are named by volume mounts."""
    common_nodes: tuple[DeviceNode, ...] = ()
    """Nodes that every container with a GPU needs: nvidiactl, nvidia-uvm and the optional ones."""
    device_nodes_missing: str = ""
    """Why device-nodes cannot be used at all, or empty."""
    mounts: tuple[HostMount, ...] = ()
    """The configured mounts whose host path exists."""
    empty_mounts: frozenset[str] = frozenset()
    """The host paths of those that are empty folders: a driver's installer may fill them later."""
    access: Mapping[str, GpuAccess] = field(factory=dict)
    """By GPU UUID."""
    unlimited: str = "the node has not been checked yet"
    """Why NVIDIA's runtime applies no memory limits, as far as its files tell, or empty."""
    cgroup_problem: str = "the node has not been checked yet"
    """Why its cgroups cannot have memory limits, or empty."""
    caps: frozenset[int] = frozenset()
    """The memory caps, in MiB, for which there is a CDI device of ours."""
    caps_problem: str = ""
    """Why the spec of these devices cannot be written, or empty."""


@frozen
class InjectionChoice:
    """The method in use on this node, why, and the GPUs it cannot hand over."""

    method: InjectionMethod
    why: str
    unavailable: Mapping[str, str] = field(factory=dict)
    """Reason by UUID: the free shares of these GPUs are withheld."""


@frozen
class Injection:
    """The kubelet's answer for one container."""

    envs: Mapping[str, str]
    mounts: tuple[HostMount, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    cdi: tuple[str, ...] = ()


def lacks(method: InjectionMethod, host: NodeHost, gpus: Sequence[Gpu]) -> dict[str, str]:
    """Which GPUs a method cannot hand over on this host, with the reason for each."""
    if method not in (InjectionMethod.CDI, InjectionMethod.DEVICE_NODES):
        return {}
    reasons = {}
    unknown = GpuAccess(nodes_missing="no facts", cdi_missing="no facts")
    for gpu in gpus:
        access = host.access.get(gpu.uuid, unknown)
        reason = access.cdi_missing
        if method is InjectionMethod.DEVICE_NODES:
            reason = host.device_nodes_missing or access.nodes_missing
        if reason and not gpu.fake:
            reasons[gpu.uuid] = f"{method.value}: {reason}"
    return reasons


def choose(
    wanted: InjectionSettings, host: NodeHost, gpus: Sequence[Gpu], *, several: bool
) -> InjectionChoice:
    """The method for this node. `several`: more than one resource is configured.

    With several resources `auto` never takes nvidia-runtime: two answers for one container would
    set its variable to different values, and the kubelet keeps either; mounts of two answers add
    up. It takes device-nodes only where the driver's libraries come with them: by a configured
    mount that exists, or with none configured, which says that the images bring the libraries.
    """
    if wanted.method is not InjectionMethod.AUTO:
        return InjectionChoice(
            wanted.method, "set in [container]", lacks(wanted.method, host, gpus)
        )
    if gpus and all(gpu.fake for gpu in gpus):
        method = InjectionMethod.DEVICE_NODES if several else InjectionMethod.NVIDIA_RUNTIME
        return InjectionChoice(method, "fake GPUs: environment only")
    no_cdi = lacks(InjectionMethod.CDI, host, gpus)
    if gpus and not no_cdi:
        return InjectionChoice(InjectionMethod.CDI, "a CDI spec on the node names every GPU")
    if host.runtime and not several:
        return InjectionChoice(
            InjectionMethod.NVIDIA_RUNTIME, f"NVIDIA's runtime is on the node: {host.runtime}"
        )
    if host.runtime and host.volume_mounts:
        why = f"NVIDIA's runtime is on the node and takes volume mounts: {host.runtime}"
        return InjectionChoice(InjectionMethod.VOLUME_MOUNTS, why)
    no_nodes = lacks(InjectionMethod.DEVICE_NODES, host, gpus)
    filled = [mount.host for mount in host.mounts if mount.host not in host.empty_mounts]
    if not (filled or not wanted.mounts):
        places = ", ".join(mount.host for mount in wanted.mounts)
        state = "empty" if host.mounts else "absent"
        bare = f"device-nodes: the driver's libraries do not come with them, as {places} is {state}"
        no_nodes = {gpu.uuid: no_nodes.get(gpu.uuid, bare) for gpu in gpus if not gpu.fake}
    if not no_nodes:
        with_libraries = (
            f"the driver's libraries come from {filled[0]}"
            if filled
            else "[container] mounts is empty: images bring the driver's libraries"
        )
        why = f"the device nodes are there, and {with_libraries}"
        return InjectionChoice(InjectionMethod.DEVICE_NODES, why)
    runtime = (
        "not with several resources, and it does not take volume mounts"
        if host.runtime
        else "not found on the node"
    )
    missing = {
        uuid: f"no method to hand the GPU over: {no_cdi.get(uuid, 'cdi: a GPU has no name')}; "
        f"nvidia-runtime: {runtime}; {reason}. {WAYS_OUT}"
        for uuid, reason in no_nodes.items()
    }
    return InjectionChoice(InjectionMethod.DEVICE_NODES, "no other method is available", missing)


def variable_prefix(resource: str, resources: Sequence[str]) -> str:
    """What the names of our variables start with: `SGPUD_`, or `SGPUD_SHARED_A100_`.

    With several resources the name carries the resource, so that two of them in one container
    do not collide; where two have the same last part, it carries the domain as well.
    """
    if len(resources) < 2:  # noqa: PLR2004 - one resource needs no name
        return "SGPUD_"

    def word(text: str) -> str:
        return re.sub(r"[^A-Z0-9]", "_", text.upper())

    short = word(resource.rpartition("/")[2])
    alike = sum(short == word(other.rpartition("/")[2]) for other in resources)
    return f"SGPUD_{short if alike < 2 else word(resource)}_"  # noqa: PLR2004 - itself and another


@frozen
class GrantedGpu:
    """One GPU of an answer: how many shares of it, of how many that it is cut into."""

    gpu: Gpu
    shares: int
    per_gpu: int
    size: int = 0
    """Bytes of one share, for memory shares."""


def answer(
    chosen: InjectionChoice,
    host: NodeHost,
    taken: Sequence[GrantedGpu],
    *,
    prefix: str,
    at: float = 0.0,
    cap: int = 0,
) -> Injection:
    """The answer for one container that was granted these shares at `at` (since the epoch).

    `cap`: the container's memory limit in MiB, 0 for none. By cdi it comes as a device of ours,
    which wins over a variable of the pod, as soon as there is one for it; device-nodes cannot set
    one.

    The variables, whatever the method (`prefix` is `variable_prefix`):
    GPU_UUIDS, comma-separated; SHARES, how many shares; SHARES_PER_GPU, into how many shares each
    of those GPUs is cut; GPU_MEMORY_BYTES, the memory of each whole GPU (left out if that of one
    is not known); SINCE, when it was granted, in whole seconds since the epoch; for memory shares
    MEMORY_BYTES, what they stand for.
    """
    gpus = [item.gpu for item in taken]
    uuids = ",".join(gpu.uuid for gpu in gpus)
    envs = {
        f"{prefix}GPU_UUIDS": uuids,
        f"{prefix}SHARES": str(sum(item.shares for item in taken)),
        f"{prefix}SHARES_PER_GPU": ",".join(str(item.per_gpu) for item in taken),
    }
    if all(gpu.memory is not None for gpu in gpus):
        envs[f"{prefix}GPU_MEMORY_BYTES"] = ",".join(str(gpu.memory) for gpu in gpus)
    if at:
        envs[f"{prefix}SINCE"] = str(int(at))
    if any(item.size for item in taken):
        memory = (str(item.shares * item.size) for item in taken)
        envs[f"{prefix}MEMORY_BYTES"] = ",".join(memory)
    real = [gpu for gpu in gpus if not gpu.fake]
    by_device = chosen.method is InjectionMethod.CDI and cap in host.caps
    if cap and not by_device and chosen.method is not InjectionMethod.DEVICE_NODES:
        envs.update(cap_variables(cap))
    if chosen.method is InjectionMethod.NVIDIA_RUNTIME:
        return Injection({**envs, VISIBLE: uuids})
    if chosen.method is InjectionMethod.VOLUME_MOUNTS:
        mounts = tuple(HostMount("/dev/null", f"{VOLUME_ROOT}/{gpu.uuid}") for gpu in real)
        return Injection({**envs, VISIBLE: VOLUME_ROOT}, mounts)
    # An image that says `all` would otherwise see every GPU under NVIDIA's runtime.
    envs[VISIBLE] = "void"
    access = [host.access.get(gpu.uuid, GpuAccess()) for gpu in real]
    if chosen.method is InjectionMethod.CDI:
        limit = (f"{CAP_KIND}={cap_device(cap)}",) if by_device else ()
        return Injection(envs, cdi=(*(item.cdi for item in access), *limit))
    if not real:
        return Injection(envs)
    nodes = (*host.common_nodes, *(node for item in access for node in item.nodes))
    return Injection(envs, host.mounts, tuple(dict.fromkeys(nodes)))
