"""Whole nodes to examine, made of files below a folder."""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import define, field

from sgpud.cli.doctor.command import facts_of, findings_of
from sgpud.cli.doctor.facts import Finding, Severity
from sgpud.cli.offline import FoundGpus
from sgpud.core.gpu.gpu import Gpu
from sgpud.gpus.nvml.faults import GpuFault
from sgpud.serve.control.client import AbsentError
from tests.core.values import gpu

VERSION = "550.54.15"
PLUGINS = "var/lib/kubelet/device-plugins"
PODS = "var/lib/kubelet/pod-resources/kubelet.sock"
NVIDIA_RUNTIME = "etc/nvidia-container-runtime/config.toml"
CONTAINERD = "etc/containerd/config.toml"
SPEC = "etc/cdi/nvidia.yaml"


@define
class FakeNode:
    """A node below `root`. As it is made, all is well and GPUs go by nvidia-runtime."""

    root: Path
    stack: ExitStack
    gpus: tuple[Gpu, ...] = (gpu(0), gpu(1))
    nvml: str = VERSION
    """The driver's version as NVML tells it."""
    fault: GpuFault | None = None
    errors: dict[str, str] = field(factory=dict)
    view: Mapping[str, Any] | None = None
    container: str = 'method = "nvidia-runtime"'
    more: str = ""
    sets: list[str] = field(factory=lambda: ["sharing.full_guard=true"])

    def healthy(self) -> FakeNode:
        """Everything that a good node has."""
        self.write("sys/module/nvidia/version", f"{VERSION}\n")
        self.write(f"usr/lib/x86_64-linux-gnu/libnvidia-ml.so.{VERSION}", "")
        for name in ("nvidiactl", "nvidia-uvm", "nvidia0", "nvidia1"):
            self.write(f"dev/{name}", "")
        for minor in (0, 1, 255):
            self.write(f"dev/char/195:{minor}", "")
        self.write("usr/bin/nvidia-container-runtime", "")
        self.write(NVIDIA_RUNTIME, "accept-nvidia-visible-devices-as-volume-mounts = true\n")
        self.containerd("enable_cdi = true", default="nvidia")
        self.listen("run/containerd/containerd.sock")
        self.listen(f"{PLUGINS}/kubelet.sock")
        self.listen(PODS)
        self.register({"deepomatic.com/shared-gpu": [f"{self.gpus[0].uuid}::0"], "x.org/nic": []})
        self.write("sys/fs/cgroup/cgroup.controllers", "cpu memory\n")
        return self

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.root / name).unlink()

    def listen(self, name: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        listener = self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(path))
        listener.listen()

    def hang_up(self, name: str) -> None:
        """Leave a socket on which nobody listens."""
        self.remove(name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
            left.bind(str(self.root / name))

    def containerd(self, cri: str, *, version: int = 2, default: str = "") -> None:
        plugin = "io.containerd.grpc.v1.cri" if version == 2 else "io.containerd.cri.v1.runtime"
        named = f'default_runtime_name = "{default}"' if default else ""
        self.write(
            CONTAINERD,
            f'version = {version}\n[plugins."{plugin}"]\n{cri}\n'
            f'[plugins."{plugin}".containerd]\n{named}\n',
        )

    def register(self, ids: Mapping[str, list[str]]) -> None:
        """Have the kubelet's checkpoint name these ids."""
        data = {"PodDeviceEntries": None, "RegisteredDevices": ids}
        checkpoint = json.dumps({"Data": data, "Checksum": 1})
        self.write(f"{PLUGINS}/kubelet_internal_checkpoint", checkpoint)

    def spec(self, version: str = VERSION) -> None:
        """A CDI spec that names every GPU by its UUID."""
        devices = "".join(
            f"- name: {one.uuid}\n  containerEdits:\n    deviceNodes:\n"
            f"    - path: /dev/nvidia{one.minor}\n"
            for one in self.gpus
        )
        self.write(
            SPEC,
            f"cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n{devices}"
            "containerEdits:\n  mounts:\n"
            f"  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{version}\n"
            f"    containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{version}\n",
        )

    def findings(self) -> list[Finding]:
        self.write("etc/sgpud.toml", f"[container]\n{self.container}\n{self.more}\n")
        arguments = argparse.Namespace(
            root=str(self.root),
            set=self.sets,
            plugin_dir=None,
        )
        found = FoundGpus(self.gpus, "" if self.fault else self.nvml, self.fault, self.errors)
        return findings_of(facts_of(arguments, str(self.root / "etc/sgpud.toml"), found, self.ask))

    def bad(self) -> dict[str, list[Finding]]:
        """What is worse than a note, by check."""
        found: dict[str, list[Finding]] = {}
        for one in self.findings():
            if one.severity > Severity.NOTE:
                found.setdefault(one.check, []).append(one)
        return found

    def only(self, check: str) -> Finding:
        """The one finding there is that is worse than a note."""
        bad = self.bad()
        assert list(bad) == [check], bad
        (one,) = bad[check]
        assert one.means
        assert one.todo
        return one

    def ask(self) -> Mapping[str, Any]:
        if self.view is None:
            raise AbsentError("No sgpud answers")
        return self.view
