"""sgpud as a DaemonSet of a real cluster: its image, its manifests, pods that hold its shares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import absences
from tests.e2e.cluster import LABEL, NAMESPACE, RESOURCE, ROOT, Cluster, eventually
from tests.e2e.image import NAME as BOX_IMAGE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

GPUS = {f"GPU-5e000000-0000-4000-8000-00000000000{number}" for number in range(2)}
SHARES = frozenset(f"{gpu}-_-{number}" for gpu in GPUS for number in range(100))
"""What the overlay `simulated` shares."""
GONE_AT_MOST = 0.1
"""Seconds."""
ROLLOUTS = 5


@pytest.fixture(scope="module", autouse=True)
def overlay(cluster: Cluster, sgpud_image: Path) -> None:
    """The overlay `simulated` on a node with the label."""
    cluster.take(sgpud_image)
    cluster.kubectl("apply", "-k", str(ROOT / "deploy" / "overlays" / "simulated"))
    cluster.label(LABEL)
    cluster.daemon()
    whole(cluster)


@pytest.fixture(autouse=True)
def clean(cluster: Cluster) -> Iterator[None]:
    """No pod of one test is there in the next."""
    yield
    cluster.kubectl("delete", "deployments,pods", "--all", "--now", seconds=60)
    eventually(lambda: not cluster.get("pods"), "no pod of users is left", 60)


def whole(cluster: Cluster) -> None:
    """Wait until the node has every share; its status is told to the API server all 10 s."""
    eventually(lambda: cluster.allocatable() == len(SHARES), "the node has all shares", 60)


def box(limit: int) -> dict[str, Any]:
    """The spec of a pod that holds shares until it is deleted."""
    container = {
        "name": "main",
        "image": BOX_IMAGE,
        "command": ["sh", "-c", "env; exec sleep 3600"],
        "resources": {"limits": {RESOURCE: str(limit)}},
    }
    return {"terminationGracePeriodSeconds": 0, "containers": [container]}


def hold(cluster: Cluster, name: str, limit: int) -> dict[str, Any]:
    """A pod that holds shares, once it runs."""
    metadata = {"name": name}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": box(limit)})
    eventually(lambda: cluster.phase(name) == "Running", f"pod {name} runs", 60)
    pod: dict[str, Any] = cluster.get("pod", name)
    return pod


def life(pod: dict[str, Any]) -> tuple[str, str, int]:
    """What a restart of a pod or of its only container would change."""
    (status,) = pod["status"]["containerStatuses"]
    return pod["metadata"]["uid"], status["containerID"], status["restartCount"]


def test_the_examples_run(cluster: Cluster) -> None:
    for name in ("one-share", "two-containers"):
        cluster.kubectl("apply", f"--filename={ROOT / 'examples' / name}.yaml")
    said = dict(line.split("=", 1) for line in cluster.finished("one-share").splitlines())
    assert said["SGPUD_SHARES"] == "1"
    assert said["SGPUD_GPU_UUIDS"] in GPUS
    assert said["SGPUD_GPU_MEMORY_BYTES"] == str(24 * 2**30)
    encoder, model = cluster.finished("two-containers").splitlines()
    assert {encoder.removeprefix("encoder on "), model.removeprefix("model on ")} == GPUS


def test_a_pod_keeps_what_it_was_told(cluster: Cluster) -> None:
    hold(cluster, "holder", 2)
    said = set(cluster.kubectl("exec", "holder", "--", "env").splitlines())
    assert "SGPUD_SHARES=2" in said
    (told,) = (line for line in said if line.startswith("SGPUD_GPU_UUIDS="))
    assert set(told.split("=")[1].split(",")) == GPUS
    (visible,) = (line for line in said if line.startswith("NVIDIA_VISIBLE_DEVICES="))
    assert visible.split("=")[1] == told.split("=")[1]
    assert len(cluster.kubelet.held(RESOURCE)["holder"]) == 2


def edit(cluster: Cluster, old: str, new: str) -> None:
    """Replace a line of the ConfigMap, as `kubectl edit` would."""
    text = cluster.get("configmap", "sgpud", f"--namespace={NAMESPACE}")["data"]["sgpud.toml"]
    assert old in text
    patch = json.dumps({"data": {"sgpud.toml": text.replace(old, new)}})
    words = ("patch", "configmap", "sgpud", f"--namespace={NAMESPACE}", "--type=merge")
    cluster.kubectl(*words, f"--patch={patch}")


def listed(cluster: Cluster, count: int) -> None:
    """Wait for an edit of the ConfigMap to be a number of shares."""
    eventually(
        lambda: len(cluster.kubelet.allocatable(RESOURCE)) == count,
        f"{count} shares are allocatable",
        120,
    )


def test_an_edit_of_the_config_map_is_a_reload(cluster: Cluster) -> None:
    daemon = life(cluster.daemon())
    holder = life(hold(cluster, "holder", 2))
    held = cluster.kubelet.held(RESOURCE)["holder"]
    with absences.watched(cluster.kubelet, RESOURCE) as seen:
        edit(cluster, "duplication_factor = 100", "duplication_factor = 50")
        listed(cluster, 100)
        edit(cluster, "duplication_factor = 50", "duplication_factor = 100")
        listed(cluster, 200)
    assert seen.longest(held) == 0
    assert life(cluster.daemon()) == daemon
    assert life(cluster.get("pod", "holder")) == holder


def test_an_edit_makes_a_share_a_part_of_the_memory(cluster: Cluster) -> None:
    daemon = life(cluster.daemon())
    edit(cluster, "duplication_factor = 100", 'share_memory = "1GiB"')
    listed(cluster, 24)
    eventually(lambda: cluster.allocatable() == 24, "the scheduler counts one GPU's memory", 60)
    cluster.kubectl("apply", f"--filename={ROOT / 'examples' / 'memory-shares.yaml'}")
    said = cluster.finished("memory-shares")
    assert said.strip() in {f"{12 * 2**30} bytes of {gpu}" for gpu in GPUS}
    edit(cluster, 'share_memory = "1GiB"', "duplication_factor = 100")
    listed(cluster, 200)
    whole(cluster)
    assert life(cluster.daemon()) == daemon


def test_without_the_label_it_ends_in_time(cluster: Cluster) -> None:
    daemon = cluster.daemon()
    holder = life(hold(cluster, "holder", 1))
    name = daemon["metadata"]["name"]
    with cluster.watch("pod", name, f"--namespace={NAMESPACE}") as states:
        cluster.label(LABEL.replace("=true", "-"))
        eventually(lambda: not cluster.daemons(), "the pod is gone", 60)
        # After the grace period it would have been killed: 137.
        (ended,) = eventually(lambda: exit_statuses(states()), "the end of its container is known")
    assert ended == 0
    eventually(lambda: cluster.allocatable() == 0, "the node has no shares", 60)
    assert life(cluster.get("pod", "holder")) == holder
    cluster.label(LABEL)
    assert cluster.daemon()["metadata"]["name"] != name
    whole(cluster)
    assert life(cluster.get("pod", "holder")) == holder


def exit_statuses(states: list[dict[str, Any]]) -> set[int]:
    """How the containers of a pod have ended."""
    return {
        container["state"]["terminated"]["exitCode"]
        for pod in states
        for container in pod["status"].get("containerStatuses", ())
        if "terminated" in container["state"]
    }


def roll(cluster: Cluster) -> None:
    """Roll the DaemonSet out anew; returns when the new pod is alone."""
    before = cluster.daemon()["metadata"]["uid"]
    cluster.kubectl("rollout", "restart", "daemonset/sgpud", f"--namespace={NAMESPACE}")
    eventually(lambda: uids(cluster) - {before}, "there is a new pod", 60)
    eventually(lambda: before not in uids(cluster), "the old pod is gone", 120)
    cluster.daemon()


def uids(cluster: Cluster) -> set[str]:
    """Of the pods of the DaemonSet."""
    return {pod["metadata"]["uid"] for pod in cluster.daemons()}


def test_a_rollout_is_a_handover(cluster: Cluster) -> None:
    holder = life(hold(cluster, "holder", 2))
    lasted = []
    with cluster.watch("node") as states:
        for _ in range(ROLLOUTS):
            with absences.watched(cluster.kubelet, RESOURCE) as seen:
                roll(cluster)
            lasted.append(seen.longest(SHARES))
        known = [int(node["status"]["allocatable"][RESOURCE]) for node in states()]
    in_words = ", ".join(f"{1000 * seconds:.0f}" for seconds in lasted)
    print(f"shares were gone for {in_words} ms")  # noqa: T201 - a figure to report
    # A busy machine can make any of them longer.
    assert min(lasted) <= GONE_AT_MOST
    assert set(known) == {len(SHARES)}
    assert life(cluster.get("pod", "holder")) == holder


def test_pods_that_come_during_a_rollout_run(cluster: Cluster) -> None:
    labels = {"app": "many"}
    spec = {
        "replicas": 0,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": box(1)},
    }
    metadata = {"name": "many"}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
    cluster.apply(deployment)
    before = uids(cluster)
    cluster.kubectl("rollout", "restart", "daemonset/sgpud", f"--namespace={NAMESPACE}")
    wanted = 0
    while wanted < 40 and uids(cluster) & before:
        wanted += 1
        cluster.kubectl("scale", "deployment/many", f"--replicas={wanted}")
    eventually(lambda: not uids(cluster) & before, "the old pod is gone", 120)

    def running() -> bool:
        phases = [pod["status"]["phase"] for pod in cluster.pods("app=many")]
        assert "Failed" not in phases, [pod["status"] for pod in cluster.pods("app=many")]
        return phases == ["Running"] * wanted

    eventually(running, "every pod of the Deployment runs", 120)
