"""Checks of the container runtime and of the CDI specs, against the chosen method."""

from __future__ import annotations

from collections.abc import Iterator

from sgpud.cli.doctor.facts import Finding, NodeFacts, Severity
from sgpud.core.sharing.rules import InjectionMethod


def check_method(facts: NodeFacts) -> Iterator[Finding]:
    """How GPUs are handed to containers, and which cannot be."""
    chosen = facts.devices.chosen
    if chosen is None or not facts.driver.gpus:
        return
    if len(chosen.unavailable) < len(facts.driver.gpus):
        yield Finding("method", Severity.GOOD, f"{chosen.method.value}: {chosen.why}")
    for uuid, reason in chosen.unavailable.items():
        yield Finding(
            "method",
            Severity.ERROR,
            f"{uuid} cannot be handed to containers: {reason}",
            "Its free shares are withheld, so that no pod fails.",
            "Resolve that, or set [container] method to one that works on this node.",
        )
    mounts = facts.devices.host.mounts
    if chosen.method is InjectionMethod.DEVICE_NODES and mounts and not facts.devices.libcuda:
        yield Finding(
            "method",
            Severity.WARNING,
            f"no libcuda.so in {' or '.join(mount.host for mount in mounts)}",
            "Containers get the GPU without the driver's libraries, and CUDA does not start.",
            "Install the driver there, or set [container] mounts to its folder, or to [] if the"
            " images bring the libraries.",
        )


def check_runtime(facts: NodeFacts) -> Iterator[Finding]:
    """Whether the container runtime supports the method."""
    runtime, chosen = facts.runtime, facts.devices.chosen
    if not runtime.sockets:
        yield Finding(
            "runtime",
            Severity.WARNING,
            "no socket of containerd, CRI-O or Docker",
            "No pod can start on this node, unless the runtime's socket is elsewhere.",
            "Check that the container runtime runs (`systemctl status containerd crio`); in a"
            " container mount the host's / and name it with --root.",
        )
    else:
        yield Finding("runtime", Severity.GOOD, f"found {' and '.join(runtime.sockets)}")
    for path, problem in runtime.unreadable.items():
        yield Finding(
            "runtime",
            Severity.NOTE,
            f"{path} cannot be read: {problem}",
            "Its settings are not checked.",
            "Run doctor as root; if it is broken, the container runtime does not start either.",
        )
    method = chosen.method if chosen else None
    if (
        method in (InjectionMethod.NVIDIA_RUNTIME, InjectionMethod.VOLUME_MOUNTS)
        and facts.driver.real
    ):
        yield from _nvidia_runtime(facts)
    if method is InjectionMethod.CDI:
        yield from _cdi(facts)


def _nvidia_runtime(facts: NodeFacts) -> Iterator[Finding]:
    runtime, chosen = facts.runtime, facts.devices.chosen
    if not facts.devices.host.runtime:
        yield Finding(
            "runtime",
            Severity.ERROR,
            "NVIDIA's container runtime is not installed, and the method needs it",
            "Containers start without a GPU.",
            "Install nvidia-container-toolkit and run `nvidia-ctk runtime configure`, or set"
            " [container] method.",
        )
    elif runtime.default and runtime.default != "nvidia":
        yield Finding(
            "runtime",
            Severity.NOTE,
            f"containerd's default runtime is {runtime.default}",
            "Pods get a GPU only with `runtimeClassName: nvidia`.",
            "Set that in the pods, or run `nvidia-ctk runtime configure --set-as-default`.",
        )
    if chosen and chosen.method is InjectionMethod.VOLUME_MOUNTS and runtime.by_mounts is not True:
        yield Finding(
            "runtime",
            Severity.ERROR,
            "NVIDIA's runtime does not accept GPUs as volume mounts",
            "Containers start without a GPU.",
            "Set accept-nvidia-visible-devices-as-volume-mounts = true in"
            " /etc/nvidia-container-runtime/config.toml.",
        )
    if chosen and chosen.method is InjectionMethod.NVIDIA_RUNTIME and runtime.by_variable is False:
        yield Finding(
            "runtime",
            Severity.ERROR,
            "NVIDIA's runtime accepts NVIDIA_VISIBLE_DEVICES only from privileged containers",
            "Ordinary containers start without a GPU.",
            'Set [container] method = "volume-mounts" or "cdi", or'
            " accept-nvidia-visible-devices-envvar-when-unprivileged = true in"
            " /etc/nvidia-container-runtime/config.toml.",
        )


def _cdi(facts: NodeFacts) -> Iterator[Finding]:
    runtime = facts.runtime
    if runtime.cdi is False:
        yield Finding(
            "runtime",
            Severity.ERROR,
            "containerd's configuration has enable_cdi = false",
            "Containers that get a GPU by its CDI name do not start.",
            "Set enable_cdi = true and restart containerd.",
        )
    elif runtime.cdi is None and runtime.configs and not runtime.modern:
        yield Finding(
            "runtime",
            Severity.WARNING,
            f"{' and '.join(runtime.configs)} does not set enable_cdi",
            "CDI is off by default in containerd 1.7, and on in 2.0 and later.",
            "On 1.7 set enable_cdi = true and restart containerd.",
        )


def check_specs(facts: NodeFacts) -> Iterator[Finding]:
    """Whether the CDI specs can be read and match the loaded driver."""
    devices, driver = facts.devices, facts.driver.version
    used = devices.chosen is not None and devices.chosen.method is InjectionMethod.CDI
    severity = Severity.ERROR if used else Severity.WARNING
    nameless = any(not access.cdi for access in devices.host.access.values())
    graded = [(reason, severity) for reason in devices.unreadable]
    graded += [
        (reason, severity if used and nameless else Severity.NOTE) for reason in devices.unknown
    ]
    for reason, grade in graded:
        yield Finding(
            "cdi",
            grade,
            reason,
            "Its devices cannot be used.",
            "Recreate it: `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`.",
        )
    for conflict in devices.conflicts:
        yield Finding(
            "cdi",
            severity,
            conflict,
            "A container runtime resolves neither, and containers with that name do not start.",
            "Remove one of the two files.",
        )
    for path, versions in devices.specs.items():
        stale = [one for one in versions if one != driver]
        if driver and stale:
            yield Finding(
                "cdi",
                severity,
                f"{path} names files of driver {', '.join(stale)}, but {driver} is loaded",
                "Containers do not start, since the files are gone, or fail in CUDA.",
                f"Recreate it after every upgrade: `nvidia-ctk cdi generate --output={path}`.",
            )
        elif facts.driver.real and not devices.named.get(path):
            yield Finding(
                "cdi",
                severity if used else Severity.NOTE,
                f"{path} names no GPU of this node with its own device nodes",
                "It was made for other GPUs, or before one was added or removed.",
                f"Recreate it: `nvidia-ctk cdi generate --output={path}`.",
            )
        else:
            yield Finding("cdi", Severity.GOOD, f"{path} can be used")
