"""Which pods there are, and which have ended, by what the API server tells of them."""

from __future__ import annotations

from typing import Any

import pytest

from sgpud.core.cluster.pods import MIRROR, ClusterPod, changed, listed, pod_of
from sgpud.core.limits.settings import OVERUSE_ANNOTATION, SPARE

A, B, C = (ClusterPod(uid, "ns", f"pod-{uid}") for uid in "abc")


def finished(pod: ClusterPod) -> ClusterPod:
    return ClusterPod(pod.uid, pod.namespace, pod.name, finished=True)


def document(phase: str | None, **status: Any) -> dict[str, Any]:
    """A pod as the API server has it."""
    known = {} if phase is None else {"phase": phase}
    metadata = {"uid": "a", "namespace": "ns", "name": "pod-a"}
    return {"metadata": metadata, "status": {**known, **status}}


@pytest.mark.parametrize(
    ("phase", "ends"),
    [
        ("Succeeded", True),
        ("Failed", True),
        ("Pending", False),
        ("Running", False),
        ("Unknown", False),
        (None, False),
    ],
)
def test_a_pod_has_ended_when_its_phase_says_so(phase: str | None, ends: bool) -> None:  # noqa: FBT001
    assert pod_of(document(phase)) == ClusterPod("a", "ns", "pod-a", ends)


@pytest.mark.parametrize(
    ("annotations", "priority", "says"),
    [
        ({}, None, ""),
        ({OVERUSE_ANNOTATION: "evict"}, 0, ""),
        ({OVERUSE_ANNOTATION: SPARE}, 0, f'its annotation {OVERUSE_ANNOTATION} is "spare"'),
        ({MIRROR: "x"}, None, "a static pod"),
        ({}, 1_999_999_999, ""),
        ({}, 2_000_000_000, "a critical pod, of priority 2000000000"),
    ],
)
def test_who_is_spared_static_and_critical_pods_and_those_that_say_so(
    annotations: dict[str, str], priority: int | None, says: str
) -> None:
    one = document("Running")
    one["metadata"]["annotations"] = annotations
    one["spec"] = {} if priority is None else {"priority": priority}
    assert pod_of(one).spared == says


def test_a_container_that_has_ended_is_no_end_of_its_pod() -> None:
    ended = {"state": {"terminated": {"exitCode": 0}}}
    for phase, more in (
        ("Running", {"containerStatuses": [ended]}),
        ("Pending", {"initContainerStatuses": [ended]}),
    ):
        assert not pod_of(document(phase, **more)).finished
    leaving = document("Running")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not pod_of(leaving).finished


def test_a_static_pod_has_the_uid_that_the_kubelet_knows() -> None:
    mirror = document("Running")
    mirror["metadata"]["annotations"] = {MIRROR: "hash"}
    assert pod_of(mirror).uid == "hash"


def test_a_list_tells_who_has_ended_meanwhile() -> None:
    before = listed({}, [A, B, C]).pods
    change = listed(before, [A, finished(B)])
    assert change.ended == {"b", "c"}
    assert dict(change.pods) == {"a": A, "b": finished(B)}
    assert listed(change.pods, [A, finished(B)]).ended == frozenset()
    # Whether sgpud has ever seen it alive does not matter: the checkpoint may name it.
    assert listed({}, [finished(A)]).ended == {"a"}


def test_events_tell_each_end_once() -> None:
    change = changed({}, A, deleted=False)
    assert (dict(change.pods), change.ended) == ({"a": A}, frozenset())
    change = changed(change.pods, finished(A), deleted=False)
    assert change.ended == {"a"}
    change = changed(change.pods, finished(A), deleted=False)
    assert change.ended == frozenset()
    change = changed(change.pods, finished(A), deleted=True)
    assert (dict(change.pods), change.ended) == ({}, frozenset())
    assert changed({"a": A, "b": B}, A, deleted=True).ended == {"a"}


def test_another_pod_of_the_same_name_is_another_pod() -> None:
    again = ClusterPod("d", A.namespace, A.name)
    change = changed({"a": A}, again, deleted=False)
    assert dict(change.pods) == {"a": A, "d": again}
    assert changed(change.pods, A, deleted=True).pods == {"d": again}


def test_the_claims_of_a_pod_are_known() -> None:
    found = pod_of(
        document(
            "Pending",
            resourceClaimStatuses=[{"name": "g", "resourceClaimName": "pod-a-g"}, {"name": "h"}],
            extendedResourceClaimStatus={"resourceClaimName": "pod-a-extended-resources-x"},
        )
    )
    assert found.claims == {"pod-a-g", "pod-a-extended-resources-x"}


def test_a_pod_that_was_refused_on_the_node_says_why() -> None:
    refused = document("Failed", reason="UnexpectedAdmissionError", message="room: no")
    other = document("Failed", reason="Evicted", message="low on memory")
    assert (pod_of(refused).refusal, pod_of(other).refusal) == ("room: no", "")
    change = listed({}, [pod_of(refused), B])
    assert [pod.refusal for pod in change.refused] == ["room: no"]
    assert changed(change.pods, pod_of(refused), deleted=True).refused == ()
