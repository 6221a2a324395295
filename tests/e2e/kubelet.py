"""A real kubelet: without an API server its pods come from a folder, and it answers for itself."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import grpc
from attrs import Factory, define
from google.protobuf.message import Message

from sgpud.kubelet.api import podresources_pb2 as podresources
from tests.e2e import box
from tests.e2e.node import ADDRESS, CONTAINERD_SOCKET, Node
from tests.e2e.waiting import DidNotHappenError, until

READ_ONLY_PORT = 10255
HOSTNAME = "e2e"
NAMESPACE = "default"
BOX = "/busybox"
# A container tells its environment when it starts, then waits for its end.
TELL = f"{BOX} env > /out/env; exec {BOX} tail -f /dev/null"

Answer = TypeVar("Answer", bound=Message)


@define
class Kubelet:
    """The kubelet of a node, with what the tests ask it and the pods that they give it."""

    node: Node
    settings: Mapping[str, Any] = Factory(dict)
    """What its configuration has beside, or instead of, the usual."""
    flags: Sequence[str] = ()
    _process: subprocess.Popen[str] | None = None
    _pid: str = ""
    """Its process id inside the node."""

    @property
    def plugin_dir(self) -> Path:
        """The device plugin folder, as the daemon sees it."""
        return self.node.root / "kubelet" / "device-plugins"

    @property
    def log(self) -> Path:
        """What every kubelet of this node has written."""
        return self.node.root / "kubelet.log"

    def start(self) -> None:
        """Start it; returns when it answers on its podresources socket."""
        config = self.node.root / "kubelet.json"
        config.write_text(json.dumps({**self._config(), **self.settings}))
        kubelet = [str(self.node.assets.kubelet), f"--config={config}", "--v=2"]
        kubelet += [f"--hostname-override={HOSTNAME}", f"--node-ip={ADDRESS}", *self.flags]
        command = self.node.inside("sh", "-c", 'echo $$; exec "$@" >&2', "kubelet", *kubelet)
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        with self._process.stdout as said:
            self._pid = said.readline().strip()
        until(self._answers, "the kubelet answers")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait until it is gone; its containers run on."""
        assert self._process is not None
        assert self._process.poll() is None, f"the kubelet has ended by itself, see {self.log}"
        self.node.run("kill", f"-{how.value}", self._pid)
        self._process.wait(20)
        self._process = None

    def clear(self) -> None:
        """Kill it if it still runs."""
        if self._process is not None:
            self.stop(signal.SIGKILL)

    def _config(self) -> dict[str, Any]:
        root = self.node.root
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "enableServer": False,
            "readOnlyPort": READ_ONLY_PORT,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.node.cgroup,
            "failCgroupV1": False,
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "registerNode": False,
            "staticPodPath": str(root / "manifests"),
            "syncFrequency": "1s",
            "volumePluginDir": str(root / "volume-plugins"),
            # How full the machine's disk and memory are is none of these tests' business.
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
        }

    # What it says.

    def _ask(self, method: str, request: Message, answer: type[Answer]) -> Answer:
        path = self.node.root / "kubelet" / "pod-resources" / "kubelet.sock"
        with grpc.insecure_channel(f"unix:{path}") as channel:
            call: grpc.UnaryUnaryMultiCallable[Message, Answer] = channel.unary_unary(
                f"/v1.PodResourcesLister/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=answer.FromString,
            )
            return call(request, timeout=20, wait_for_ready=True)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            message = f"the kubelet ended at once, see {self.log}"
            raise DidNotHappenError(message)
        try:
            self.allocatable("")
        except grpc.RpcError:
            return False
        return True

    def allocatable(self, resource: str) -> frozenset[str]:
        """The healthy ids of a resource: what the node's allocatable counts."""
        request = podresources.AllocatableResourcesRequest()
        kind = podresources.AllocatableResourcesResponse
        answer = self._ask("GetAllocatableResources", request, kind)
        return frozenset(
            name
            for devices in answer.devices
            if devices.resource_name == resource
            for name in devices.device_ids
        )

    def held(self, resource: str) -> dict[str, frozenset[str]]:
        """The ids that each pod holds, by the name its manifest gives it."""
        request = podresources.ListPodResourcesRequest()
        answer = self._ask("List", request, podresources.ListPodResourcesResponse)
        return {
            pod.name.removesuffix(f"-{HOSTNAME}"): frozenset(
                name
                for container in pod.containers
                for devices in container.devices
                if devices.resource_name == resource
                for name in devices.device_ids
            )
            for pod in answer.pod_resources
        }

    def checkpoint(self) -> dict[str, Any]:
        """The device manager's checkpoint, as the file has it now."""
        data: dict[str, Any] = json.loads(
            (self.plugin_dir / "kubelet_internal_checkpoint").read_text()
        )["Data"]
        return data

    def given(self, pod: str) -> list[bytes]:
        """The AllocateResponses that the checkpoint keeps for a pod's containers."""
        uid = self.status(pod)["metadata"]["uid"]
        entries = self.checkpoint()["PodDeviceEntries"] or []
        return [base64.b64decode(entry["AllocResp"]) for entry in entries if entry["PodUID"] == uid]

    def status(self, pod: str) -> dict[str, Any]:
        """The pod as the kubelet shows it, or an empty one when it has none of that name."""
        url = f"http://127.0.0.1:{READ_ONLY_PORT}/pods"
        busybox = str(self.node.assets.folder / "busybox")
        shown = self.node.run(busybox, "wget", "-q", "-O", "-", url)
        pods: list[dict[str, Any]] = json.loads(shown.stdout or "{}").get("items") or []
        named = [item for item in pods if item["metadata"]["name"] == f"{pod}-{HOSTNAME}"]
        return named[0] if named else {}

    # The pods.

    def run_pod(self, name: str, limits: Mapping[str, int]) -> dict[str, str]:
        """Run a pod of one container with these limits; its environment, once it runs."""
        out = self.node.root / "out" / name
        out.mkdir()
        os.mkfifo(out / "env")
        reader = os.open(out / "env", os.O_RDONLY | os.O_NONBLOCK)
        try:
            self._write_manifest(name, out, {key: str(limit) for key, limit in limits.items()})
            return dict(
                line.split("=", 1) for line in self._read(reader, name).splitlines() if "=" in line
            )
        finally:
            os.close(reader)

    def _read(self, reader: int, name: str) -> str:
        ready, _, _ = select.select([reader], [], [], 60)
        if not ready:
            status = json.dumps(self.status(name).get("status"), indent=1)
            message = f"pod {name} did not start; its status is {status}"
            raise DidNotHappenError(message)
        # One write of `env` is far below a pipe's buffer.
        return os.read(reader, 65536).decode()

    def _write_manifest(self, name: str, out: Path, limits: dict[str, str]) -> None:
        container = {
            "name": "main",
            "image": box.NAME,
            "imagePullPolicy": "Never",
            "command": [BOX, "sh", "-c", TELL],
            "resources": {"limits": limits},
            "volumeMounts": [{"name": "out", "mountPath": "/out"}],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                # The node has no network but the loopback interface, and needs none.
                "hostNetwork": True,
                "terminationGracePeriodSeconds": 1,
                "containers": [container],
                "volumes": [{"name": "out", "hostPath": {"path": str(out)}}],
            },
        }
        # The kubelet takes up whatever lies in its folder: the file appears there whole.
        draft = self.node.root / f"{name}.json"
        draft.write_text(json.dumps(pod))
        draft.rename(self.node.root / "manifests" / f"{name}.json")

    def remove_pod(self, name: str) -> None:
        """Remove a pod; returns when the kubelet has let it go."""
        (self.node.root / "manifests" / f"{name}.json").unlink()
        until(lambda: not self.status(name), f"pod {name} is gone", 60)

    def container(self, pod: str) -> str:
        """The id of the container that the pod runs now, or nothing while it runs none."""
        containers = self.status(pod).get("status", {}).get("containerStatuses", [])
        return next((c["containerID"] for c in containers if "running" in c["state"]), "")
