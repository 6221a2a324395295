"""sgpud as a DRA driver of a real cluster, with the credentials of its node."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from tests.e2e.box import NAME as BOX_IMAGE
from tests.e2e.cluster import RESOURCE, ROOT, Cluster, eventually
from tests.e2e.daemon import UUIDS, Daemon
from tests.e2e.kubelet import HOSTNAME
from tests.e2e.waiting import until
from tests.e2e.workload import box, clear, hold, life

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

BASE = ROOT / "deploy" / "base"
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


def test_a_kubelet_restart_costs_no_pod_and_the_slice_is_back_within_2_s(
    cluster: Cluster,
    daemon: Daemon,  # noqa: ARG001
) -> None:
    before = life(hold(cluster, "holder", 1))
    seen: dict[str, float] = {}
    with cluster.watch("resourceslices") as events:

        def back() -> bool:
            for event in events()[1:]:
                if event.kind in ("ADDED", "DELETED"):
                    seen.setdefault(event.kind, time.monotonic())
            return seen.keys() == {"ADDED", "DELETED"}

        cluster.kubelet.stop()
        cluster.kubelet.start()
        until(back, "the slice was deleted and is there again", 30)
    gone = seen["ADDED"] - seen["DELETED"]
    print(f"the slice was gone for {gone:.2f} s")  # noqa: T201 - a figure to report
    assert gone <= 2
    hold(cluster, "next", 1)
    assert life(cluster.get("pod", "holder")) == before


def test_a_reboot_brings_all_pods_back(cluster: Cluster, daemon: Daemon) -> None:
    for name, count in (("one", 1), ("two", 2)):
        hold(cluster, name, count)
    cluster.apply(*claim_pod("memory", "8Gi"))
    eventually(partial(runs, cluster, "memory"), "memory runs", 60)
    names = ("one", "two", "memory")
    before = {name: cluster.get("pod", name) for name in names}
    daemon.stop(signal.SIGKILL)
    cluster.kubelet.stop(signal.SIGKILL)
    cluster.node.kill_containers()
    boot = cluster.node.root / "boot_id"
    boot.write_text(f"{uuid4()}\n")
    for command in (
        ("sh", "-c", "rm -f /var/run/cdi/*"),
        ("mount", "--bind", str(boot), "/proc/sys/kernel/random/boot_id"),
    ):
        assert cluster.node.run(*command).returncode == 0
    daemon.start()
    cluster.kubelet.start()

    def back(name: str) -> bool:
        pod = cluster.get("pod", name)
        (status,) = pod["status"]["containerStatuses"]
        (old,) = before[name]["status"]["containerStatuses"]
        return bool(status["containerID"] != old["containerID"] and runs(cluster, name))

    for name in names:
        eventually(partial(back, name), f"{name} runs again", 120)
        assert cluster.get("pod", name)["metadata"]["uid"] == before[name]["metadata"]["uid"]
    assert told(cluster, "memory")["SGPUD_MEMORY_BYTES"] == str(8 * GIB)
    assert set(told(cluster, "two")["SGPUD_GPU_UUIDS"].split(",")) == set(UUIDS)


def test_a_lost_cdi_spec_is_restored_before_a_container_restarts(
    cluster: Cluster,
    daemon: Daemon,  # noqa: ARG001
) -> None:
    pod = hold(cluster, "holder", 1)
    assert cluster.node.run("sh", "-c", "rm -f /var/run/cdi/*").returncode == 0
    cluster.node.kill_containers()
    (old,) = pod["status"]["containerStatuses"]

    def back() -> bool:
        (status,) = cluster.get("pod", "holder")["status"]["containerStatuses"]
        return bool(status["containerID"] != old["containerID"] and "running" in status["state"])

    eventually(back, "the container runs again", 60)


def test_a_cordoned_gpu_gets_no_pod_until_it_is_uncordoned(
    cluster: Cluster, daemon: Daemon
) -> None:
    daemon.about("cordon", UUIDS[0])
    eventually(lambda: "cordoned" in str(slices(cluster)), "the taint is there", 10)
    hold(cluster, "one", 1)
    assert told(cluster, "one")["SGPUD_GPU_UUIDS"] == UUIDS[1]
    daemon.about("cordon", UUIDS[1])
    eventually(lambda: str(slices(cluster)).count("cordoned") == 2, "both have it", 10)
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "two"}, "spec": box(1)})
    eventually(
        lambda: "cannot allocate all claims" in cluster.kubectl("describe", "pod", "two"),
        "the second waits",
        60,
    )
    daemon.about("uncordon", UUIDS[0])
    eventually(partial(runs, cluster, "two"), "it runs", 30)
    assert told(cluster, "two")["SGPUD_GPU_UUIDS"] == UUIDS[0]
    daemon.about("uncordon", UUIDS[1])


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


def test_a_service_account_reaches_its_own_nodes_slices_and_no_others(cluster: Cluster) -> None:
    """The component's role and policy, with the token that the DaemonSet's pod would have."""
    for name in ("namespace", "service-account"):
        cluster.kubectl("apply", "-n", "sgpud", "-f", str(BASE / f"{name}.yaml"))
    for name in ("cluster-role", "admission-policy", "device-class"):
        cluster.kubectl("apply", "-f", str(CLASS.with_name(f"{name}.yaml")))
    pause = {"name": "main", "image": BOX_IMAGE, "command": ["sleep", "3600"]}
    metadata = {"name": "holder-of-the-token", "namespace": "sgpud"}
    spec = {"serviceAccountName": "sgpud", "nodeName": HOSTNAME, "containers": [pause]}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    words = ("create", "token", "sgpud", "-n", "sgpud", "--bound-object-kind=Pod")
    bound = cluster.kubectl(*words, "--bound-object-name=holder-of-the-token").strip()
    loose = cluster.kubectl(*words[:5]).strip()
    config = json.loads(cluster.control.kubeconfig("kubelet").read_text())
    config["users"][0]["user"] = {"token": bound}
    (cluster.node.root / "account.kubeconfig").write_text(json.dumps(config))
    settings = (
        'kubelet.api="dra"',
        f'dra.kubeconfig="{cluster.node.root / "account.kubeconfig"}"',
        f'dra.node_name="{HOSTNAME}"',
    )
    daemon = Daemon(cluster.node.root, cluster.kubelet.plugin_dir, "account", settings)
    daemon.wrap = cluster.node.beside
    daemon.configure(4, 'placement = "packed"\n')
    try:
        daemon.start()
        eventually(lambda: slices(cluster), "the slice is published", 30)
        hold(cluster, "holder", 1)
        assert told(cluster, "holder")["SGPUD_SHARES"] == "1"
        for token, node, driver, says in (
            (bound, "other", "gpu.deepomatic.com", "of its own node only"),
            (bound, HOSTNAME, "gpu.example.com", "of its own driver only"),
            (loose, HOSTNAME, "gpu.deepomatic.com", "not bound to a pod on a node"),
        ):
            assert says in refused(cluster, token, node, driver)
    finally:
        clear(cluster)
        daemon.clear()
        cluster.kubectl("delete", "-f", str(CLASS.with_name("admission-policy.yaml")))


def refused(cluster: Cluster, token: str, node: str, driver: str) -> str:
    """What the API server says to a slice of this node and driver."""
    file = cluster.node.root / "slice.json"
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": driver, "nodeName": node, "pool": pool, "devices": []}
    metadata = {"name": "forged"}
    made = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice"}
    file.write_text(json.dumps({**made, "metadata": metadata, "spec": spec}))
    # As the account alone: the kubeconfig of the administrator would win over a token.
    config = json.loads(cluster.control.kubeconfig("kubelet").read_text())
    config["users"][0]["user"] = {"token": token}
    path = cluster.node.root / "forger.kubeconfig"
    path.write_text(json.dumps(config))
    words = (cluster.control.kubectl_program, f"--kubeconfig={path}", "create")
    done = cluster.node.run(*words, f"--filename={file}")
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_a_node_is_switched_without_a_drain(cluster: Cluster) -> None:
    cluster.kubectl("apply", f"--filename={CLASS}")
    plugin = Daemon(cluster.node.root, cluster.kubelet.plugin_dir, "switched")
    plugin.wrap = cluster.node.beside
    plugin.configure(4, 'placement = "packed"\n')
    try:
        plugin.start()
        eventually(lambda: cluster.allocatable() == 8, "the device plugin's shares are there", 60)
        old = hold(cluster, "old", 1)
        (gpu,) = told(cluster, "old")["SGPUD_GPU_UUIDS"].split(",")
        cluster.kubectl("cordon", HOSTNAME)
        plugin.stop()
        # "old" holds a share of the device plugin.
        plugin.options = ("--force",)
        plugin.settings = (
            'kubelet.api="dra"',
            f'dra.kubeconfig="{cluster.control.kubeconfig("kubelet")}"',
            f'dra.node_name="{HOSTNAME}"',
        )
        plugin.start()
        eventually(lambda: cluster.allocatable() == 0, "the node shows no shares", 60)

        def reduced() -> bool:
            return any(
                device["attributes"]["uuid"]["string"] == gpu
                and device["capacity"]["shares"]["value"] == "3"
                for found in slices(cluster)
                for device in found["spec"]["devices"]
            )

        eventually(reduced, "what the old pod holds is not offered", 60)
        cluster.kubectl("uncordon", HOSTNAME)
        gpus = []
        for number in range(4):
            hold(cluster, f"new-{number}", 1)
            gpus.append(told(cluster, f"new-{number}")["SGPUD_GPU_UUIDS"])
        assert gpus.count(gpu) == 3
        assert life(cluster.get("pod", "old")) == life(old)
        cluster.kubectl("delete", "pod", "old", "--now")
    finally:
        clear(cluster)
        plugin.clear()
