"""Whom no taint evicts: pods with limits on an unhealthy GPU."""

from __future__ import annotations

from collections.abc import Iterable

from sgpud.core.cluster.conditions import unhealthy_gpus
from sgpud.core.cluster.events import ObjectReference, pod_reference
from sgpud.core.dra.claims import PreparedClaim
from sgpud.core.planning.node import Node


def pods_to_evict(claims: Iterable[PreparedClaim], node: Node) -> dict[ObjectReference, str]:
    """The pods, each with its reason.

    Kubernetes evicts pods with a claim of their own by the taint NoExecute, and never those whose
    claim it made itself, for their limits.
    """
    sick = unhealthy_gpus(node)
    found = {}
    for prepared in claims:
        if prepared.claim.extended_resource:
            gpus = sorted(set(prepared.uuids.values()) & sick.keys())
            for pod in prepared.claim.pods if gpus else ():
                if pod.uid and pod.name:
                    reference = pod_reference(prepared.claim.namespace, pod.name, pod.uid)
                    found[reference] = f"its GPU {gpus[0]} is unhealthy"
    return found
