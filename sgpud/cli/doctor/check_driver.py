"""Checks of NVIDIA's driver and of its device nodes."""

from __future__ import annotations

from collections.abc import Iterator

from sgpud.cli.doctor.facts import Finding, NodeFacts, Severity
from sgpud.core.sharing.rules import InjectionMethod
from sgpud.core.text import several
from sgpud.gpus.nvml.probe.protocol import EMPTY_MIG

_BY_RUNTIME = (InjectionMethod.NVIDIA_RUNTIME, InjectionMethod.VOLUME_MOUNTS, InjectionMethod.CDI)
"""Methods with which NVIDIA's own tools create missing device nodes."""


def check_driver(facts: NodeFacts) -> Iterator[Finding]:
    """Whether the driver is loaded and answers, and can read every GPU."""
    driver = facts.driver
    if driver.gpus and not driver.real:
        what = f"{several(len(driver.gpus), 'fake GPU')}: the driver is not checked"
        yield Finding("driver", Severity.NOTE, what)
        return
    if driver.fault:
        yield Finding(
            "driver",
            Severity.ERROR,
            f"NVML does not work: {driver.fault}",
            "sgpud cannot see the GPUs of this node: free shares are withheld.",
            f"{driver.advice[:1].upper()}{driver.advice[1:]}.",
        )
    elif driver.real:
        names = ", ".join(f"{gpu.index} {gpu.product}" for gpu in driver.real)
        version = driver.version or "of unknown version"
        what = f"driver {version} answers for {several(len(driver.real), 'GPU')}: {names}"
        yield Finding("driver", Severity.GOOD, what)
    for gpu, error in driver.errors.items():
        yield _unreadable(gpu, error)


def _unreadable(gpu: str, error: str) -> Finding:
    if error == EMPTY_MIG:
        return Finding(
            "driver",
            Severity.WARNING,
            f"GPU {gpu}: {error}",
            "No pod gets any of it.",
            "Create instances (`nvidia-smi mig -cgi PROFILE -C`), or end MIG mode"
            " (`nvidia-smi -mig 0`).",
        )
    if "UUID" in error:
        return Finding(
            "driver",
            Severity.ERROR,
            f"GPU {gpu} cannot be shared: {error}",
            "No pod gets any of it.",
            "Compare with `nvidia-smi -L`, and report it: sgpud should know every UUID that fits.",
        )
    return Finding(
        "driver",
        Severity.ERROR,
        f"GPU {gpu} cannot be read: {error}",
        "Its shares are Unhealthy, and pods that hold them cannot use it.",
        "Look for Xid lines about it in `dmesg`; reset the GPU, or reboot.",
    )


def check_versions(facts: NodeFacts) -> Iterator[Finding]:
    """Whether kernel module, NVML and library have the same version."""
    driver = facts.driver
    if not driver.version:
        if not driver.gpus:
            yield Finding(
                "versions",
                Severity.ERROR,
                "the kernel module nvidia is not loaded",
                "No GPU of this node can be used.",
                "Load it with `nvidia-modprobe -c0 -u` or install the driver; `dmesg` says why it"
                " does not load. On a node without GPUs do not run sgpud.",
            )
        return
    if driver.kernel and driver.nvml and driver.kernel != driver.nvml:
        yield Finding(
            "versions",
            Severity.WARNING,
            f"kernel module {driver.kernel}, but NVML reports driver {driver.nvml}",
            "The driver was upgraded under a loaded module, or NVML's library is not that of this"
            " node's driver: CUDA can fail with a version mismatch.",
            "Reboot the node, or unload and load the nvidia modules; in a container mount the"
            " host's library, and name the host's / with --root.",
        )
    loaded = (
        f"kernel module {driver.kernel}"
        if driver.kernel
        else f"driver {driver.nvml} according to NVML, the kernel does not say"
    )
    others = {path: found for path, found in driver.libraries.items() if found != driver.version}
    if not others:
        there = "the same" if driver.libraries else "not found in the usual folders"
        yield Finding("versions", Severity.GOOD, f"{loaded}, library {there}")
        return
    listed = ", ".join(f"{path} ({found})" for path, found in sorted(others.items()))
    none_fits = len(others) == len(driver.libraries)
    yield Finding(
        "versions",
        Severity.ERROR if none_fits else Severity.WARNING,
        f"{loaded}, but {listed}",
        "NVML and CUDA fail with a version mismatch: the driver was upgraded under a loaded module."
        if none_fits
        else "Which library a program loads depends on its search path.",
        "Reboot the node, or unload and load the nvidia modules."
        if none_fits
        else "Remove the library that does not belong to the driver.",
    )


def check_nodes(facts: NodeFacts) -> Iterator[Finding]:
    """Whether the device nodes exist that the method needs."""
    host, chosen, gpus = facts.devices.host, facts.devices.chosen, facts.driver.real
    if not gpus:
        return
    made_by_tools = chosen is not None and chosen.method in _BY_RUNTIME
    severity = Severity.WARNING if made_by_tools else Severity.ERROR
    means = (
        "Containers can start if NVIDIA's tools create the nodes."
        if made_by_tools
        else "Containers cannot open the GPUs."
    )
    reasons = [host.device_nodes_missing] if host.device_nodes_missing else []
    reasons += [
        f"{gpu.uuid}: {access.nodes_missing}"
        for gpu in gpus
        if (access := host.access.get(gpu.uuid)) and access.nodes_missing
    ]
    for reason in reasons:
        what, _, todo = reason.partition(": run ")
        command = f"Run {todo}." if todo else "See the message."
        yield Finding("devices", severity, what, means, command)
    if not reasons:
        what = f"the device nodes of {several(len(gpus), 'GPU')} exist"
        yield Finding("devices", Severity.GOOD, what)


def check_links(facts: NodeFacts) -> Iterator[Finding]:
    """Whether a `systemctl daemon-reload` would remove the GPUs from running containers."""
    missing, chosen = facts.devices.links_missing, facts.devices.chosen
    if missing and chosen is not None and chosen.method is not InjectionMethod.CDI:
        yield Finding(
            "devices",
            Severity.WARNING,
            f"no {', '.join(missing)}",
            "With the systemd cgroup driver every `systemctl daemon-reload` removes the GPUs"
            " from running containers: runc finds devices by these links.",
            "Run `nvidia-ctk system create-dev-char-symlinks --create-all` at every boot, or set"
            ' [container] method = "cdi".',
        )
