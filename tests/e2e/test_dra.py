"""sgpud as a DRA driver of a real cluster, with the credentials of its node."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.e2e.box import NAME as BOX_IMAGE
from tests.e2e.cluster import RESOURCE, ROOT, Cluster, eventually
from tests.e2e.daemon import UUIDS, Daemon
from tests.e2e.kubelet import HOSTNAME
from tests.e2e.workload import box, clear, hold, life

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CLASS = ROOT / "deploy" / "components" / "dra" / "device-class.yaml"
GIB = 2**30


@pytest.fixture
def daemon(cluster: Cluster) -> Iterator[Daemon]:
    """The daemon in the node's namespaces, started; the cluster has the DeviceClass."""
    cluster.kubectl("apply", f"--filename={CLASS}")
    settings = (
        'kubelet.api="dra"',
        f'dra.kubeconfig="{cluster.control.kubeconfig("kubelet")}"',
        f'dra.node_name="{HOSTNAME}"',
    )
    made = Daemon(cluster.node.root, cluster.kubelet.plugin_dir, "dra", settings)
    made.wrap = cluster.node.beside
    made.configure(4, 'placement = "packed"\n')
    try:
        made.start()
        eventually(lambda: slices(cluster), "the slice is published", 30)
        yield made
        clear(cluster)
    finally:
        made.clear()


def slices(cluster: Cluster) -> list[dict[str, Any]]:
    """The ResourceSlices of the cluster."""
    found: list[dict[str, Any]] = cluster.get("resourceslices").get("items", [])
    return found


def told(cluster: Cluster, pod: str) -> dict[str, str]:
    """The variables that sgpud gave the container of a pod."""
    said = cluster.kubectl("exec", pod, "--", "env").splitlines()
    return dict(line.split("=", 1) for line in said if line.startswith("SGPUD_"))


def runs(cluster: Cluster, pod: str) -> bool:
    """Whether a pod runs."""
    return cluster.phase(pod) == "Running"


def claim_pod(name: str, memory: str) -> tuple[dict[str, Any], ...]:
    """A pod with a claim for an amount of memory of one GPU."""
    exactly = {
        "deviceClassName": "shared-gpu.deepomatic.com",
        "capacity": {"requests": {"memory": memory}},
    }
    template = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}},
    }
    container = {
        "name": "main",
        "image": BOX_IMAGE,
        "command": ["sh", "-c", "env; exec sleep 3600"],
        "resources": {"claims": [{"name": "gpu"}]},
    }
    spec = {
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": name}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    return template, pod


def test_unchanged_pods_are_packed_per_gpu_by_the_scheduler(
    cluster: Cluster, daemon: Daemon
) -> None:
    gpus = []
    for number in range(5):
        hold(cluster, f"one-{number}", 1)
        gpus.append(told(cluster, f"one-{number}")["SGPUD_GPU_UUIDS"])
    assert gpus == [gpus[0]] * 4 + [next(uuid for uuid in UUIDS if uuid != gpus[0])]
    assert cluster.get("node", HOSTNAME)["status"]["allocatable"].get(RESOURCE, "0") == "0"
    hold(cluster, "last", 1)
    assert daemon.holders(RESOURCE) >= {"default/last/container-0-request-0"}


def test_two_shares_are_two_gpus(cluster: Cluster, daemon: Daemon) -> None:  # noqa: ARG001
    hold(cluster, "two", 2)
    assert set(told(cluster, "two")["SGPUD_GPU_UUIDS"].split(",")) == set(UUIDS)
    cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "three"}, "spec": box(3)}
    )
    eventually(
        lambda: "cannot allocate all claims" in cluster.kubectl("describe", "pod", "three"),
        "three shares of two GPUs are refused by the scheduler",
        60,
    )
    assert cluster.phase("three") == "Pending"


def test_claims_for_memory_are_packed_and_what_does_not_fit_waits(
    cluster: Cluster,
    daemon: Daemon,  # noqa: ARG001
) -> None:
    for name in ("first", "second"):
        cluster.apply(*claim_pod(name, "20Gi"))
        eventually(partial(runs, cluster, name), f"{name} runs", 60)
        assert told(cluster, name)["SGPUD_MEMORY_BYTES"] == str(20 * GIB)
    gpus = {told(cluster, name)["SGPUD_GPU_UUIDS"] for name in ("first", "second")}
    assert gpus == set(UUIDS)
    cluster.apply(*claim_pod("third", "12Gi"))
    eventually(
        lambda: "cannot allocate all claims" in cluster.kubectl("describe", "pod", "third"),
        "the third waits",
        60,
    )
    cluster.kubectl("delete", "pod", "first", "--now")
    eventually(lambda: cluster.phase("third") == "Running", "the third runs", 30)


def test_a_kubelet_restart_costs_no_pod_and_the_slice_is_back(
    cluster: Cluster,
    daemon: Daemon,  # noqa: ARG001
) -> None:
    before = life(hold(cluster, "holder", 1))
    with cluster.watch("resourceslices") as events:
        old = {each["metadata"]["uid"] for each in slices(cluster)}
        cluster.kubelet.stop()
        cluster.kubelet.start()
        eventually(
            lambda: any(
                event.kind == "ADDED" and event.object["metadata"]["uid"] not in old
                for event in events()
            ),
            "a new slice is there",
            30,
        )
    hold(cluster, "next", 1)
    assert life(cluster.get("pod", "holder")) == before


def test_a_kill_of_the_daemon_costs_no_pod(cluster: Cluster, daemon: Daemon) -> None:
    before = life(hold(cluster, "holder", 1))
    daemon.stop(signal.SIGKILL)
    cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "during"}, "spec": box(1)}
    )
    daemon.start()
    eventually(lambda: cluster.phase("during") == "Running", "the pod runs", 60)
    assert life(cluster.get("pod", "holder")) == before
    cluster.kubectl("delete", "pod", "holder", "--now")
    eventually(lambda: "holder" not in str(daemon.holders(RESOURCE)), "it is unprepared", 90)
