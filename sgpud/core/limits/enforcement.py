"""What enforces the memory that containers were granted of a GPU, why nothing better does, and how.

It says what is known to apply: that the driver and the toolkit's hook for it are there, or that the
helper could set a limit and read it back. What the toolkit sets is not read back from the driver.
"""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from sgpud.core.allocation.injection import GpuAccess, InjectionChoice, NodeHost
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.limits.caps import FIRST_DRIVER, FIRST_TOOLKIT, HOOK, LIMIT_VARIABLE, knows_limits
from sgpud.core.limits.pod_caps import can_be_capped
from sgpud.core.limits.settings import LimitSettings, MemoryLimits, OveruseAction
from sgpud.core.planning.node import Node
from sgpud.core.sharing.rules import InjectionMethod

_TOOLKIT = f"Install nvidia-container-toolkit {FIRST_TOOLKIT} or later"
_SPEC = "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"


class EnforcementKind(Enum):
    """What keeps a container within its memory."""

    TOOLKIT = "toolkit"
    """The driver does, by a limit that NVIDIA's container toolkit sets at the container's start."""
    DMEM = "dmem"
    """The driver does, with the kernel's controller dmem, by a limit that sgpud's helper sets."""
    MISC = "misc"
    """The driver does, by its own counting, by a limit that sgpud's helper sets."""
    WATCH = "watch"
    """Nothing does, but use beyond it is found and reported."""
    NONE = "none"
    """Nothing does, and nobody would know."""


@frozen
class Enforcement:
    """What enforces the memory of one GPU."""

    kind: EnforcementKind
    reason: str
    """Why it is this, and nothing better."""
    remedy: str = ""
    """What a person can do for better, or empty."""


@frozen
class Handing:
    """How a node hands a GPU over, as far as memory limits depend on it."""

    settings: LimitSettings
    driver: str
    """Its version, or empty."""
    host: NodeHost
    chosen: InjectionChoice | None


def enforcement(
    node: Node, chosen: InjectionChoice | None, gpu: Gpu, use_problem: str
) -> Enforcement:
    """What enforces the memory of a GPU.

    `use_problem`: why it is not known what its containers use, or empty.
    """
    shares = [each for (_, uuid), each in node.partitions().items() if uuid == gpu.uuid]
    if not shares or node.sharing is None:
        return Enforcement(EnforcementKind.NONE, "it is not shared")
    holders = node.checkpoint.holders if node.checkpoint else ()
    # A claim is granted memory whatever the shares of its GPU are.
    memory = any(each.size for each in shares) or any(gpu.uuid in one.sizes for one in holders)
    found = _limited(node, chosen, gpu) if memory else _places()
    if found.kind is not EnforcementKind.NONE:
        return found
    if memory and node.limits.memory is MemoryLimits.REQUIRE:
        why = f'{found.reason}; containers wait, since [limits] memory is "require"'
        found = Enforcement(found.kind, why, found.remedy)
    if node.limits.overuse is OveruseAction.OFF:
        watching = '[limits] overuse is "off"'
    elif not memory and not node.sharing.guard_settings.expected:
        return found
    else:
        watching = use_problem
    if watching:
        return Enforcement(EnforcementKind.NONE, f"{found.reason}; {watching}", found.remedy)
    return Enforcement(EnforcementKind.WATCH, found.reason, found.remedy)


def _limited(node: Node, chosen: InjectionChoice | None, gpu: Gpu) -> Enforcement:
    """What limits the memory shares of a GPU: a pod's limit on dmem, or the toolkit's, or misc's.

    On misc the nearest limit alone counts, which is the toolkit's, of each container.
    """
    found = by_toolkit(Handing(node.limits, node.driver, node.host, chosen), gpu)
    if node.limits.memory is MemoryLimits.OFF or can_be_capped(gpu):
        return found
    limiting = node.capping.gpus.get(gpu.uuid)
    if limiting is None:
        return found
    if limiting.backend == EnforcementKind.DMEM.value:
        what = f"the helper sets them for each pod, kernel and driver {node.driver} enforce them"
        return Enforcement(EnforcementKind.DMEM, what)
    if found.kind is EnforcementKind.TOOLKIT:
        return found
    if limiting.backend:
        what = f"the helper sets them for each pod, driver {node.driver} enforces them"
        return Enforcement(EnforcementKind.MISC, what)
    if not knows_limits(node.driver):
        return found
    return Enforcement(found.kind, f"{found.reason}; {limiting.problem}", found.remedy)


def limited_by_toolkit(node: Node, chosen: InjectionChoice | None) -> frozenset[str]:
    """The UUIDs of the GPUs on which NVIDIA's toolkit limits each container."""
    handing = Handing(node.limits, node.driver, node.host, chosen)
    return frozenset(
        gpu.uuid
        for gpu in node.gpus or ()
        if by_toolkit(handing, gpu).kind is EnforcementKind.TOOLKIT
    )


def by_toolkit(handing: Handing, gpu: Gpu) -> Enforcement:
    """Whether the toolkit limits the memory shares of a GPU: TOOLKIT, or NONE and why not."""
    chosen, host, driver = handing.chosen, handing.host, handing.driver
    access = host.access.get(gpu.uuid, GpuAccess())
    method = chosen.method if chosen else None
    by_cdi = method is InjectionMethod.CDI
    checks = (
        (gpu.fake, "it is a fake GPU", ""),
        (
            handing.settings.memory is MemoryLimits.OFF,
            '[limits] memory is "off"',
            'Set [limits] memory = "auto".',
        ),
        (gpu.mig is not None, "NVIDIA's driver cannot limit memory within a MIG instance", ""),
        (
            not knows_limits(driver),
            f"driver {driver or 'of unknown version'} cannot limit memory",
            f"Install driver {FIRST_DRIVER} or later.",
        ),
        (bool(host.cgroup_problem), host.cgroup_problem, "Use cgroup v2 on Linux 5.13 or later."),
        (method is None, "how GPUs are handed over is not known yet", ""),
        (
            method is InjectionMethod.DEVICE_NODES,
            "method device-nodes does without NVIDIA's container toolkit, which sets the limits",
            f'{_TOOLKIT} and set [container] method = "cdi".',
        ),
        (
            by_cdi and not access.limited,
            f"its CDI spec does not have the hook {HOOK}",
            f"{_TOOLKIT} and recreate the spec: {_SPEC}.",
        ),
        (not by_cdi and bool(host.unlimited), host.unlimited, f"{_TOOLKIT}."),
    )
    for holds, reason, remedy in checks:
        if holds:
            return Enforcement(EnforcementKind.NONE, reason, remedy)
    if by_cdi and not host.caps_problem:
        what = f"the hook in its CDI spec sets them, driver {driver} enforces them"
        return Enforcement(EnforcementKind.TOOLKIT, what)
    why = f" ({host.caps_problem})" if by_cdi else ""
    return Enforcement(
        EnforcementKind.TOOLKIT,
        f"NVIDIA's container toolkit sets them, driver {driver} enforces them, but a pod that sets"
        f" {LIMIT_VARIABLE} itself overrides its own{why}",
        "" if by_cdi else 'Set [container] method = "cdi", which no pod can override.',
    )


def _places() -> Enforcement:
    return Enforcement(
        EnforcementKind.NONE,
        "its shares are places, which promise no memory",
        "Set [sharing] share_memory, or expected_memory to have overuse reported.",
    )
