"""A cluster of one node, and what the tests ask of it and do to it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from attrs import define, frozen

from tests.e2e import box, control
from tests.e2e.control import ControlPlane
from tests.e2e.kubelet import HOSTNAME, Kubelet
from tests.e2e.node import ADDRESS, Assets, Node
from tests.e2e.waiting import until

ROOT = Path(__file__).parents[2]
NETWORK_PLUGINS = ("ptp", "host-local", "loopback")
PROGRAMS = (*control.PROGRAMS, *NETWORK_PLUGINS)
"""What a cluster takes from the folder beside what a lone kubelet's node takes."""
POD_NETWORK = "203.0.113.0/24"
"""Where the pods' addresses are from: RFC 5737; each pod is joined to the node by a link."""
RESOURCE = "deepomatic.com/shared-gpu"
LABEL = "deepomatic.com/shared-gpu=true"
NAMESPACE = "sgpud"
EXAMPLES_IMAGE = "docker.io/nvidia/cuda:12.4.1-base-ubuntu22.04"
eventually = partial(until, every=0.3)
"""To wait for what kubectl is asked for: a process each time, and a tenth of a second of work."""


def missing(assets: Assets) -> tuple[str, ...]:
    """The programs of a cluster that are not in the folder."""
    return (*assets.missing(), *(name for name in PROGRAMS if not (assets.folder / name).exists()))


@frozen
class Event:
    """A change of an object, and the object after it."""

    kind: str
    """ADDED, MODIFIED or DELETED."""
    object: Mapping[str, Any]


@define
class Cluster:
    """The node, its kubelet, the control plane inside of it."""

    node: Node
    control: ControlPlane
    kubelet: Kubelet

    def start(self) -> None:
        """Start everything; returns when the node is Ready."""
        self.node.start()
        self._write_network()
        # The pods' image is called what the examples call theirs, too.
        self._ctr("images", "tag", box.NAME, EXAMPLES_IMAGE)
        self.control.start()
        self.kubelet.start()
        eventually(self._node_ready, "the node is Ready", 90)

    def _write_network(self) -> None:
        folder = self.node.root / "cni"
        for name in NETWORK_PLUGINS:
            (folder / name).symlink_to(self.node.assets.folder / name)
        address = {
            "type": "host-local",
            "ranges": [[{"subnet": POD_NETWORK}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        }
        network = {
            "cniVersion": "0.4.0",
            "name": "e2e",
            "plugins": [{"type": "ptp", "ipam": address}],
        }
        (folder / "10-e2e.conflist").write_text(json.dumps(network))

    def take(self, archive: Path) -> None:
        """Give the node an image."""
        self._ctr("images", "import", str(archive))

    def _ctr(self, *words: str) -> None:
        done = self.node.run(*self.node.ctr(*words), seconds=180)
        assert done.returncode == 0, done.stderr

    def stop(self) -> None:
        """End it; nothing is left."""
        self.kubelet.clear()
        self.node.stop()
        self.control.wait()

    # What it is told.

    def kubectl(self, *words: str, seconds: float = 30) -> str:
        """What kubectl prints; AssertionError with its complaint."""
        done = self.control.call(*words, seconds=seconds)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def get(self, *words: str) -> Any:
        """What `kubectl get` finds, as JSON; nothing where there is no such object."""
        said = self.kubectl("get", "--output=json", "--ignore-not-found", *words)
        return json.loads(said) if said else {}

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Apply objects."""
        file = self.node.root / "applied.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}))
        self.kubectl("apply", f"--filename={file}")

    def label(self, word: str) -> None:
        """Set a label of the node, or take it off with `NAME-`."""
        self.kubectl("label", "node", HOSTNAME, "--overwrite", word)

    # What it says.

    def _node_ready(self) -> bool:
        status = self.get("node", HOSTNAME).get("status", {})
        return is_true(status, "Ready")

    def allocatable(self) -> int:
        """The node's shares, as the API server has them."""
        return int(self.get("node", HOSTNAME)["status"]["allocatable"].get(RESOURCE, "0"))

    def pods(self, selector: str, namespace: str = "default") -> list[dict[str, Any]]:
        """The pods that a label selects."""
        found = self.get("pods", f"--namespace={namespace}", f"--selector={selector}")
        items: list[dict[str, Any]] = found.get("items", [])
        return items

    def daemons(self) -> list[dict[str, Any]]:
        """The pods of the DaemonSet."""
        return self.pods("app.kubernetes.io/name=sgpud", NAMESPACE)

    def daemon(self) -> dict[str, Any]:
        """The only one of them, once it is alone and Ready."""
        return eventually(self._lone_daemon, "one pod of sgpud is there, and Ready", 120)

    def _lone_daemon(self) -> dict[str, Any] | None:
        pods = self.daemons()
        if len(pods) == 1 and is_true(pods[0]["status"], "Ready"):
            return pods[0]
        return None

    def phase(self, pod: str) -> str:
        """The phase of a pod of the default namespace."""
        status = self.get("pod", pod)["status"]
        return f"{status['phase']} {status.get('reason', '')}".strip()

    def finished(self, pod: str) -> str:
        """What a pod has printed, once it has Succeeded."""
        eventually(lambda: self.phase(pod) == "Succeeded", f"pod {pod} has succeeded", 60)
        return self.kubectl("logs", pod, "--all-containers")

    @contextmanager
    def watch(self, kind: str, *words: str) -> Iterator[Callable[[], list[Event]]]:
        """Watch objects while the block runs: a function that tells all events until now."""
        file = self.node.root / f"watched-{kind}.json"
        words = ("get", kind, "--watch", "--output-watch-events", "--output=json", *words)
        command = self.node.beside(*self.control.kubectl_command(*words))
        with file.open("wb") as out:
            watching = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out)
        try:
            until(lambda: file.stat().st_size, "the watch has begun")
            yield lambda: [
                Event(each["type"], each["object"]) for each in _documents(file.read_text())
            ]
        finally:
            watching.terminate()
            watching.wait(20)


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """The JSON documents of a text, without one that has only begun."""
    decoder, at = json.JSONDecoder(), 0
    while (at := text.find("{", at)) >= 0:
        try:
            document, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            return
        yield document


def is_true(status: Mapping[str, Any], kind: str) -> bool:
    """Whether the status of an object says so."""
    return any(
        condition["type"] == kind and condition["status"] == "True"
        for condition in status.get("conditions", ())
    )


def make(root: Path, assets: Assets, need_tool: Callable[[str], str]) -> Cluster:
    """A cluster in an empty folder, not started."""
    node = Node(root, assets)
    plane = ControlPlane(node, need_tool("openssl"), need_tool("kubectl"))
    settings = {
        "registerNode": True,
        # For `kubectl logs` and `exec`; nobody else is in the node's network.
        "enableServer": True,
        "address": ADDRESS,
        # There is no name server.
        "resolvConf": "",
    }
    flags = (f"--kubeconfig={plane.kubeconfig('kubelet')}",)
    return Cluster(node, plane, Kubelet(node, settings, flags))
