"""Steps that tests of the daemon share: admitting pods, waiting for lists, faulty files."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from sgpud.testing.kubelet.records import Container
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.cgroups import hierarchy, process
from tests.daemon.node import OTHER, RESOURCE, Node, shares
from tests.daemon.record import WITHIN

ALL = shares(10, 10)
RULE = f'[[gpu]]\nmatch = "NVIDIA L4"\nresource = "{OTHER}"\nduplication_factor = 4\n'
BAD = "[sharing]\nduplication_factor = 0\nplacement = 'heap'\n\n[gpu]\n"
PLACES = (":2: sharing.duplication_factor: ", ":3: sharing.placement: ", ":5: gpu: ")


def admit(kubelet: StandInKubelet, pod: str, count: int = 1, resource: str = RESOURCE) -> Container:
    return kubelet.admit(f"uid-{pod}", "default", pod, "main", {resource: count}, timeout=WITHIN)


def became(kubelet: StandInKubelet, resource: str, healthy: int, capacity: int) -> None:
    """Wait until the kubelet shows so many shares of a resource."""
    kubelet.wait_for(
        lambda k: (k.allocatable(resource), k.capacity(resource)) == (healthy, capacity), WITHIN
    )


def listed(kubelet: StandInKubelet) -> None:
    """Wait for the next registration and the whole list."""
    kubelet.next_registration(WITHIN)
    assert kubelet.next_devices(RESOURCE, WITHIN).healthy == ALL


def admitted(kubelet: StandInKubelet, pod: str = "pod") -> str:
    """Admit a pod that wants one share; the share."""
    container = kubelet.admit(f"uid-{pod}", "default", pod, "main", {RESOURCE: 1}, timeout=WITHIN)
    return container.ids[RESOURCE][0]


def options(node: Node) -> list[str]:
    """The words that name this node to commands that work without a daemon."""
    return [
        *("--config", str(node.config)),
        *("--fake-gpus", str(node.gpus)),
        *("--plugin-dir", str(node.plugin_dir)),
        *("--run-dir", str(node.run)),
    ]


def explained(node: Node, about: str) -> dict[str, Any]:
    done = node.command("explain", about, "--json", "--run-dir", str(node.run))
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def until_it_holds(node: Node, about: str) -> dict[str, Any]:
    """The explanation, once sgpud has read who holds what."""
    end = time.monotonic() + WITHIN
    found = explained(node, about)
    while not found["holders"]:
        assert time.monotonic() < end, found
        found = explained(node, about)
    return found


@contextmanager
def waiting(paths: dict[str, str]) -> Iterator[dict[str, int]]:
    """Processes in cgroups of these paths, by name: their ids."""
    here = hierarchy("v2")
    with ExitStack() as stack:
        found = {}
        for name, path in paths.items():
            cgroup = stack.enter_context(here.cgroup(path)) if path else None
            found[name] = stack.enter_context(process(cgroup))
        yield found
