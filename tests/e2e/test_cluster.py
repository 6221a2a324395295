"""sgpud as a DaemonSet of a real cluster: its image, its manifests, pods that hold its shares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import absences
from tests.e2e.absences import Absence
from tests.e2e.cluster import LABEL, NAMESPACE, RESOURCE, ROOT, Cluster, eventually
from tests.e2e.workload import box, clear, exit_statuses, gone, hold, life

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

GPUS = {f"GPU-5e000000-0000-4000-8000-00000000000{number}" for number in range(2)}
SHARES = frozenset(f"{gpu}::{number}" for gpu in GPUS for number in range(100))
"""What the overlay `fake-gpus` shares."""
GONE_AT_MOST = 0.1
"""Seconds."""
ROLLOUTS = 5
PODS_AT_MOST = 40
RESTART = ("rollout", "restart", "daemonset/sgpud", f"--namespace={NAMESPACE}")


@pytest.fixture(scope="module", autouse=True)
def image(cluster: Cluster, sgpud_image: Path) -> None:
    """The node has sgpud's image."""
    cluster.take(sgpud_image)


@pytest.fixture(autouse=True)
def overlay(cluster: Cluster, image: None) -> Iterator[None]:  # noqa: ARG001
    """The overlay `fake-gpus` on a node with the label, as if no other test had been before."""
    cluster.kubectl("apply", "-k", str(ROOT / "deploy" / "overlays" / "fake-gpus"))
    cluster.label(LABEL)
    cluster.daemon()
    whole(cluster)
    yield
    clear(cluster)


def whole(cluster: Cluster) -> None:
    """Wait until the node has every share, in the eyes of the API server.

    sgpud looks once in a minute who holds shares: half of a GPU's memory, which a finished pod of
    another test held, leaves half of the shares until then.
    """
    eventually(lambda: cluster.allocatable() == len(SHARES), "the node has all shares", 120)


def test_the_daemon_has_nothing_to_complain_of(cluster: Cluster) -> None:
    name = cluster.daemon()["metadata"]["name"]
    lines = cluster.kubectl("logs", name, f"--namespace={NAMESPACE}").splitlines()
    said = [json.loads(line) for line in lines]
    assert said
    assert [line for line in said if line["level"] != "info"] == []


def test_the_examples_run(cluster: Cluster) -> None:
    for name in ("one-share", "two-containers"):
        cluster.kubectl("apply", f"--filename={ROOT / 'examples' / name}.yaml")
    said = dict(line.split("=", 1) for line in cluster.finished("one-share").splitlines())
    assert said["SGPUD_SHARES"] == "1"
    assert said["SGPUD_GPU_UUIDS"] in GPUS
    assert said["SGPUD_GPU_MEMORY_BYTES"] == str(24 * 2**30)
    lines = cluster.finished("two-containers").splitlines()
    on = dict(line.split(" on ") for line in lines)
    assert on.keys() == {"encoder", "model"}
    assert set(on.values()) == GPUS


def test_a_pod_keeps_its_environment(cluster: Cluster) -> None:
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
    assert seen.longest(held) == Absence()
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
    assert life(cluster.daemon()) == daemon


def test_without_the_label_it_ends_in_time(cluster: Cluster) -> None:
    daemon = cluster.daemon()
    holder = life(hold(cluster, "holder", 1))
    name = daemon["metadata"]["name"]
    with cluster.watch("pods", f"--namespace={NAMESPACE}") as events:
        cluster.label(LABEL.replace("=true", "-"))
        gone(events, daemon)
        (ended,) = exit_statuses(events())
    # After the grace period it would have been killed: 137.
    assert ended == 0
    eventually(lambda: cluster.allocatable() == 0, "the node has no shares", 60)
    assert life(cluster.get("pod", "holder")) == holder
    cluster.label(LABEL)
    assert cluster.daemon()["metadata"]["name"] != name
    whole(cluster)
    assert life(cluster.get("pod", "holder")) == holder


def test_a_rollout_is_a_handover(cluster: Cluster) -> None:
    holder = life(hold(cluster, "holder", 2))
    longest = []
    # To watch is less work for the machine than to ask again and again.
    with (
        cluster.watch("nodes") as nodes,
        cluster.watch("pods", f"--namespace={NAMESPACE}") as pods,
    ):
        for _ in range(ROLLOUTS):
            old = cluster.daemon()
            with absences.watched(cluster.kubelet, RESOURCE) as seen:
                cluster.kubectl(*RESTART)
                gone(pods, old)
            longest.append(seen.longest(SHARES))
        known = {event.object["status"]["allocatable"][RESOURCE] for event in nodes()}
        ended = exit_statuses(pods())
    print(f"shares were gone for {', '.join(map(str, longest))}")  # noqa: T201 - a figure to report
    # A busy machine can make any of them longer.
    assert min(absence.at_most for absence in longest) <= GONE_AT_MOST
    assert known == {str(len(SHARES))}
    assert ended == {0}
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
    refused: list[int] = []
    # A kubelet admits no pod in the milliseconds in which it knows of no share: that one of many
    # comes just then is bad luck, and its controller makes the next. More than that is an error.
    while 0 not in refused and len(refused) < ROLLOUTS:
        cluster.apply(deployment)
        refused.append(refusals(cluster, grow(cluster)))
        clear(cluster)
    print(f"pods refused in each rollout: {refused}")  # noqa: T201 - a figure to report
    assert 0 in refused


def grow(cluster: Cluster) -> int:
    """Add pods, one after the other, as long as a rollout lasts; their number."""
    old = cluster.daemon()["metadata"]["name"]
    cluster.kubectl(*RESTART)
    wanted = 0
    while wanted < PODS_AT_MOST and cluster.get("pod", old, f"--namespace={NAMESPACE}"):
        wanted += 1
        cluster.kubectl("scale", "deployment/many", f"--replicas={wanted}")
    cluster.daemon()
    return wanted


def refusals(cluster: Cluster, wanted: int) -> int:
    """How many pods failed before as many as wanted ran."""

    def phases() -> list[str] | None:
        found = [pod["status"]["phase"] for pod in cluster.pods("app=many")]
        return found if found.count("Running") == wanted else None

    found = eventually(phases, f"{wanted} pods of the Deployment run", 120)
    return found.count("Failed")
