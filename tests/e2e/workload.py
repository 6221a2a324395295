"""Pods of users that hold shares, and what becomes of pods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.e2e.box import NAME as BOX_IMAGE
from tests.e2e.cluster import RESOURCE, Cluster, Event, eventually


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


def clear(cluster: Cluster) -> None:
    """Delete the users' pods and what makes them."""
    cluster.kubectl("delete", "deployments,pods", "--all", "--now", seconds=60)
    eventually(lambda: not cluster.get("pods"), "no pod of users is left", 60)


def gone(events: Callable[[], list[Event]], pod: dict[str, Any]) -> None:
    """Wait until a pod has been deleted."""
    uid = pod["metadata"]["uid"]
    eventually(
        lambda: [
            event
            for event in events()
            if event.kind == "DELETED" and event.object["metadata"]["uid"] == uid
        ],
        "the old pod is gone",
        120,
    )


def exit_statuses(events: list[Event]) -> set[int]:
    """How the containers of pods have ended."""
    return {
        container["state"]["terminated"]["exitCode"]
        for event in events
        for container in event.object["status"].get("containerStatuses", ())
        if "terminated" in container["state"]
    }
