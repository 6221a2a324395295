"""With [dra] evict: who is evicted from an unhealthy GPU, and what Kubernetes is told."""

from __future__ import annotations

import pytest

from sgpud.core.dra.allocator import DeviceRequest
from tests.daemon.record import WITHIN
from tests.dra.node import DRIVER, GPUS, A, DraNode

pytestmark = pytest.mark.slow
FALLS = '[[event]]\nat = "8s"\ngpu = 0\nxid = 79\n'
ONE = DeviceRequest("container-0-request-0")
EVICT = 'dra.evict="unhealthy"'


def running(node: DraNode, name: str, *, limits: bool) -> None:
    """A pod with one share, on the first GPU."""
    claim = node.api.schedule(name, ONE, limits=limits)
    assert claim is not None
    (pod,) = claim["status"]["reservedFor"]
    node.api.core.add_pod(name, uid=pod["uid"])
    assert list(node.kubelet.prepare([claim]).values()) == [""], node.logs()


def sick(node: DraNode, *settings: str) -> None:
    """A node of which the first GPU falls off the bus while two pods run on it."""
    (node.root / "gpus.toml").write_text(f"{GPUS}\n{FALLS}")
    node.serve(*settings)
    node.registered()
    running(node, "limits", limits=True)
    running(node, "claim", limits=False)
    node.wait(lambda: bool(node.taints()[A]), "the GPU is tainted", WITHIN)


def test_pods_with_limits_are_evicted_by_sgpud_and_those_with_a_claim_by_the_taint(
    node: DraNode,
) -> None:
    sick(node, EVICT)
    node.wait(lambda: node.api.core.evicted == ["limits"], "the pod is evicted", WITHIN)
    assert "NoExecute" in str(node.taints()[A])
    node.wait(
        lambda: (
            {"GPUUnhealthy", "Evicted"} <= {one["reason"] for one in node.api.core.events.values()}
        ),
        "both Events are written",
        WITHIN,
    )


def test_a_budget_is_honoured_and_said(node: DraNode) -> None:
    node.api.core.budgets["default", "limits"] = "It needs 1 healthy pod and has 1."
    sick(node, EVICT)
    process = node.processes[-1]
    process.said("Cannot evict pod default/limits")
    (view,) = process.ask("plan")["view"]["cluster"]
    assert "disruption budget" in " ".join(view["problems"])
    assert node.api.core.evicted == []
    node.api.core.budgets.clear()
    node.wait(lambda: node.api.core.evicted == ["limits"], "the pod is evicted", WITHIN)


def test_without_the_right_it_says_whom_it_cannot_evict(node: DraNode) -> None:
    node.api.core.forbidden.add("create pods/eviction")
    sick(node, EVICT)
    node.processes[-1].said("Cannot evict pod default/limits")
    (view,) = node.processes[-1].ask("plan")["view"]["cluster"]
    assert "cannot evict pod default/limits: 403" in " ".join(view["problems"])


def test_by_default_nobody_is_evicted(node: DraNode) -> None:
    sick(node)
    node.wait(
        lambda: node.api.core.condition("SharedGPUUnhealthy").get("status") == "True",
        "the condition is there",
        WITHIN,
    )
    assert node.api.core.evicted == []
    assert "NoExecute" not in str(node.taints()[A])


def test_a_claim_that_is_refused_is_an_event_on_its_pod(node: DraNode) -> None:
    node.serve()
    node.registered()
    share = {"request": "r", "driver": DRIVER, "pool": node.api.node, "device": "gpu-none"}
    claim = node.api.add_claim(
        "web-extended-resources-x",
        [{**share, "shareID": "s", "consumedCapacity": {}}],
        pod="web",
        limits=True,
    )
    pod = node.api.core.add_pod("web", uid=claim["status"]["reservedFor"][0]["uid"])
    name = claim["metadata"]["name"]
    pod["status"] |= {"extendedResourceClaimStatus": {"resourceClaimName": name}}
    node.api.core.end_pod("web", phase="Pending")
    node.wait(lambda: any("/pods?" in path for _, path in node.api.calls), "pods are listed")
    node.wait(
        lambda: any("/pods?" in path and "watch" in path for _, path in node.api.calls),
        "pods are watched",
    )
    (error,) = node.kubelet.prepare([claim]).values()
    assert error
    node.wait(
        lambda: any(
            one["reason"] == "ClaimRefused" and one["involvedObject"]["name"] == "web"
            for one in node.api.core.events.values()
        ),
        "the Event is written",
    )
