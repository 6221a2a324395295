"""Pods as the API server has them, as far as they concern who holds what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import field, frozen

from sgpud.core.cluster.events import LONGEST, ObjectReference, pod_reference
from sgpud.core.limits.settings import OVERUSE_ANNOTATION, SPARE

MIRROR = "kubernetes.io/config.mirror"
"""The annotation of a static pod's mirror: the UID by which the kubelet knows the pod."""
NOT_ADMITTED = "UnexpectedAdmissionError"
"""The kubelet's reason for a pod that a device plugin refused."""
CRITICAL = 2_000_000_000
"""Pods of this priority (system-cluster-critical) and above are critical, as for the kubelet."""
_FINISHED = ("Succeeded", "Failed")


@frozen
class ClusterPod:
    """A pod that is bound to this node."""

    uid: str
    """By which the kubelet's checkpoint names it."""
    namespace: str
    name: str
    finished: bool = False
    """Whether all its containers have ended, and none is started again."""
    claims: frozenset[str] = frozenset()
    """Names of its ResourceClaims, that for its limits included."""
    refusal: str = ""
    """Why the kubelet did not admit it, where a device plugin refused it something."""
    spared: str = ""
    """Why it is never stopped for the memory that it uses, or empty."""

    @property
    def reference(self) -> ObjectReference:
        """The pod as an Event names it."""
        return pod_reference(self.namespace, self.name, self.uid)


@frozen
class PodsChange:
    """What the API server has told of the pods."""

    pods: Mapping[str, ClusterPod] = field(factory=dict)
    """Those that are there, finished or not, by UID."""
    ended: frozenset[str] = frozenset()
    """UIDs of those that have finished, or are gone, since the last change."""

    @property
    def refused(self) -> tuple[ClusterPod, ...]:
        """Those that have ended since they were not admitted."""
        ended = (self.pods.get(uid) for uid in sorted(self.ended))
        return tuple(pod for pod in ended if pod is not None and pod.refusal)


def pod_of(document: Mapping[str, Any]) -> ClusterPod:
    """A pod; KeyError or TypeError if it is none.

    The kubelet says Succeeded or Failed when no container runs any more and none will: whatever its
    restart policy, and with its init containers done or given up. A container that has ended says
    nothing of its pod.
    """
    metadata, status = document["metadata"], document.get("status") or {}
    named = [*(status.get("resourceClaimStatuses") or ())]
    named.append(status.get("extendedResourceClaimStatus") or {})
    refused = status.get("reason") == NOT_ADMITTED
    annotations = metadata.get("annotations") or {}
    mirrored = annotations.get(MIRROR)
    return ClusterPod(
        str(mirrored or metadata["uid"]),
        str(metadata["namespace"]),
        str(metadata["name"]),
        status.get("phase") in _FINISHED,
        frozenset(str(one["resourceClaimName"]) for one in named if one.get("resourceClaimName")),
        str(status.get("message", ""))[:LONGEST] if refused else "",
        _spared(annotations, (document.get("spec") or {}).get("priority") or 0),
    )


def _spared(annotations: Mapping[str, Any], priority: int) -> str:
    if MIRROR in annotations:
        return "a static pod"
    if priority >= CRITICAL:
        return f"a critical pod, of priority {priority}"
    marked = annotations.get(OVERUSE_ANNOTATION) == SPARE
    return f'its annotation {OVERUSE_ANNOTATION} is "{SPARE}"' if marked else ""


def listed(before: Mapping[str, ClusterPod], pods: Iterable[ClusterPod]) -> PodsChange:
    """The change that a list of all pods is."""
    now = {pod.uid: pod for pod in pods}
    return PodsChange(now, _running(before) - _running(now) | _finished(now) - _finished(before))


def changed(before: Mapping[str, ClusterPod], pod: ClusterPod, *, deleted: bool) -> PodsChange:
    """The change that an event of a watch is."""
    others = {uid: one for uid, one in before.items() if uid != pod.uid}
    now = others if deleted else {**others, pod.uid: pod}
    known = before.get(pod.uid)
    ends = (deleted or pod.finished) and not (known and known.finished)
    return PodsChange(now, frozenset([pod.uid]) if ends else frozenset())


def _running(pods: Mapping[str, ClusterPod]) -> frozenset[str]:
    return frozenset(uid for uid, pod in pods.items() if not pod.finished)


def _finished(pods: Mapping[str, ClusterPod]) -> frozenset[str]:
    return frozenset(uid for uid, pod in pods.items() if pod.finished)
