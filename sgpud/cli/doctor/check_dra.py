"""Checks of the cluster and the driver, where [kubelet] api is "dra"."""

from __future__ import annotations

from collections.abc import Iterator

from sgpud.cli.doctor.facts import Finding, NodeFacts, Severity
from sgpud.core.dra.classes import class_name

FLOOR = (1, 36)
"""The first Kubernetes whose defaults are enough."""


def check_dra(facts: NodeFacts) -> Iterator[Finding]:
    """Whether the scheduler can give out GPUs through Dynamic Resource Allocation."""
    dra = facts.dra
    if not dra.used:
        return
    if dra.problem:
        yield Finding(
            "dra",
            Severity.ERROR,
            f"the API server cannot be asked: {dra.problem}",
            "sgpud cannot publish this node's GPUs, and no new claim can be prepared.",
            "Set [dra] kubeconfig. For the packaged service: /usr/libexec/sgpud/allow-http gives it"
            " the network.",
        )
    elif dra.version < FLOOR:
        yield Finding(
            "dra",
            Severity.ERROR,
            "Kubernetes {}.{}".format(*dra.version),
            "Sharing a GPU needs DRAConsumableCapacity, which is on from 1.36.",
            'Update the cluster, or set [kubelet] api = "device-plugin".',
        )
    else:
        yield Finding("dra", Severity.GOOD, "Kubernetes {}.{} answers".format(*dra.version))
    yield from _classes(facts)
    for resource, number in dra.allocatable.items():
        yield Finding(
            "dra",
            Severity.ERROR,
            f"the Node shows {number} of {resource} as allocatable, by a device plugin",
            "For pods with limits the scheduler uses that number, and not DRA.",
            "Stop the other plugin; the number is 0 a few minutes after its end, or after a restart"
            " of the kubelet.",
        )
    for driver in (facts.view or {}).get("dra", ()):
        if driver["problem"]:
            yield Finding(
                "dra",
                Severity.ERROR,
                f"{driver['driver']}: {driver['problem']}",
                "The scheduler may have outdated information about this node's GPUs.",
                "Its log says more (journalctl -u sgpud).",
            )


def _classes(facts: NodeFacts) -> Iterator[Finding]:
    for resource, state in facts.dra.classes.items():
        name = class_name(resource)
        if state == "there":
            yield Finding("dra", Severity.GOOD, f"the DeviceClass {name} maps {resource}")
        elif state.startswith("403"):
            yield Finding(
                "dra",
                Severity.NOTE,
                f"the DeviceClass {name} cannot be read with these credentials",
                f"Without it pods that request {resource} stay Pending.",
                f"As an administrator: `kubectl get deviceclass {name}`.",
            )
        else:
            yield Finding(
                "dra",
                Severity.ERROR,
                f"the DeviceClass {name}: {state}",
                f"Pods that request {resource} stay Pending.",
                "As an administrator: `sgpud dra class | kubectl apply -f -`.",
            )
