"""What the tests of memory shares do with a node: GPU A has 40 GiB, GPU B 24 GiB."""

from __future__ import annotations

from typing import Any

from sgpud.testing.kubelet.records import Container
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import A, B, Node, of
from tests.daemon.process import Process
from tests.daemon.record import WITHIN

MEMORY = "deepomatic.com/shared-gpu-memory"
GIB = 2**30


def share(node: Node, *keys: str) -> None:
    """Configure memory shares of 1 GiB, and more keys of [sharing]; the last of each counts."""
    given = dict(key.split(" = ") for key in ('share_memory = "1GiB"', *keys))
    lines = "\n".join(f"{key} = {value}" for key, value in given.items())
    node.configure(resource=MEMORY, sharing=lines)


def start(node: Node, kubelet: StandInKubelet, *keys: str) -> Process:
    """A daemon that shares memory, once the kubelet has its list."""
    share(node, *keys)
    process = node.start()
    kubelet.next_devices(MEMORY, WITHIN)
    return process


def admit(kubelet: StandInKubelet, pod: str, count: int, resource: str = MEMORY) -> Container:
    """Admit a pod that wants so many shares."""
    return kubelet.admit(f"uid-{pod}", "team", pod, "main", {resource: count}, timeout=WITHIN)


def became(
    kubelet: StandInKubelet,
    healthy: int,
    capacity: int = 64,
    resource: str = MEMORY,
    within: float = WITHIN,
) -> None:
    """Wait until the kubelet shows so many shares."""
    kubelet.wait_for(
        lambda k: (k.allocatable(resource), k.capacity(resource)) == (healthy, capacity), within
    )


def healthy(kubelet: StandInKubelet, resource: str = MEMORY) -> tuple[int, int]:
    """How many shares of A and of B are listed Healthy."""
    listed = kubelet.devices(resource)
    well = [one for one, device in listed.items() if device.health == "Healthy"]
    return len(of(A, well)), len(of(B, well))


def pool(process: Process, resource: str = MEMORY) -> dict[str, Any]:
    """What the status shows of a pool."""
    (found,) = (one for one in process.view()["pools"] if one["resource"] == resource)
    return dict(found)


def gpu(process: Process, uuid: str, resource: str = MEMORY) -> dict[str, Any]:
    """What the status shows of one GPU in a pool."""
    (found,) = (one for one in pool(process, resource)["gpus"] if one["uuid"] == uuid)
    return dict(found)
