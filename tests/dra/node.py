"""The node: its folders, its daemons, and what a test waits for."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import Factory, define

from sgpud.testing.api_server import ApiServer
from sgpud.testing.dra_kubelet import DraKubelet
from tests.daemon.process import Process
from tests.daemon.record import WITHIN

A = "GPU-aaaaaaaa-0000-4000-8000-00000000000a"
B = "GPU-bbbbbbbb-0000-4000-8000-00000000000b"
DRIVER = "gpu.deepomatic.com"
GPUS = "".join(
    f'[[gpu]]\nuuid = "{uuid}"\nproduct = "NVIDIA L4"\nmemory = "24GiB"\n\n' for uuid in (A, B)
)


@define
class DraNode:
    """One node."""

    root: Path
    api: ApiServer
    kubelet: DraKubelet
    processes: list[Process] = Factory(list)

    @property
    def cdi(self) -> Path:
        """Where CDI specs are."""
        return self.root / "cdi"

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.root / "state"

    def start(
        self,
        *settings: str,
        config: str = "",
        kubeconfig: str | None = None,
        api: str = "dra",
        force: bool = False,
        run: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a daemon, with 4 places a GPU unless `config` says otherwise.

        With an empty `api` the configuration says it. `run`: of which one it has the run directory.
        `environment`: has it read GPUs by NVML.
        """
        file, gpus = self.root / "sgpud.toml", self.root / "gpus.toml"
        file.write_text(
            config or '[sharing]\nduplication_factor = 4\nplacement = "packed"\n', "utf-8"
        )
        if not gpus.exists():
            gpus.write_text(GPUS)
        access = self.root / "kubeconfig"
        if kubeconfig is None:
            self.api.write_kubeconfig(access)
        else:
            access.write_text(kubeconfig)
        number = len(self.processes)
        folder = self.run(number if run is None else run)
        words = ["--config", str(file)]
        words += ["--fake-gpus", str(gpus)] if environment is None else []
        words += ["--plugin-dir", str(self.kubelet.root / "device-plugins")]
        words += ["--state-dir", str(self.state), "--run-dir", str(folder)]
        words += ["--force"] if force else []
        chosen = (
            *([f'kubelet.api="{api}"'] if api else []),
            f'kubelet.pod_resources="{self.pod_resources}"',
            f'dra.kubeconfig="{access}"',
            f'dra.node_name="{self.api.node}"',
            f'dra.cdi_dir="{self.cdi}"',
            *settings,
        )
        words += [word for setting in chosen for word in ("--set", setting)]
        process = Process(
            words, self.root / f"notify{number}", folder / "control.sock", environment or {}
        )
        self.processes.append(process)
        return process

    def run(self, number: int) -> Path:
        """The run directory of a process."""
        return self.root / f"run{number}"

    @property
    def pod_resources(self) -> Path:
        """The podresources socket, which only a stand-in of the device manager has."""
        return self.root / "pods" / "kubelet.sock"

    def serve(self, *settings: str, config: str = "") -> Process:
        """Start a daemon; returns when its slice is published."""
        process = self.start(*settings, config=config)
        self.wait(lambda: bool(self.api.slices), "a slice is published")
        return process

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = WITHIN) -> None:
        """Wait for something at the API server."""
        assert self.api.wait(condition, seconds), f"it did not happen that {what}\n{self.logs()}"

    def registered(self) -> None:
        """Wait until the kubelet has registered the driver."""
        assert self.kubelet.wait(lambda: DRIVER in self.kubelet.drivers, WITHIN), self.logs()

    @property
    def spec(self) -> Mapping[str, Any]:
        """The only slice's spec."""
        (found,) = self.api.slices.values()
        spec: Mapping[str, Any] = found["spec"]
        return spec

    def taints(self) -> dict[str, list[tuple[str, str, str]]]:
        """The taints by UUID."""
        return {
            device["attributes"]["uuid"]["string"]: [
                (taint["key"], taint["value"], taint["effect"])
                for taint in device.get("taints", ())
            ]
            for device in self.spec["devices"]
        }

    def holders(self) -> list[dict[str, Any]]:
        """The holders that the daemon shows."""
        view = self.processes[-1].ask("plan")["view"]
        return [
            holder for pool in view["pools"] for gpu in pool["gpus"] for holder in gpu["holders"]
        ]

    def specs(self) -> dict[str, Any]:
        """The CDI specs by file name."""
        return {path.name: json.loads(path.read_text()) for path in self.cdi.glob("*.json")}

    def logs(self) -> str:
        """What the daemons said."""
        return "\n".join(
            f"--- {number}\n" + "\n".join(map(str, process.log.items))
            for number, process in enumerate(self.processes)
        )

    def close(self) -> None:
        """End every daemon."""
        for process in self.processes:
            process.close()
        complaints = [line.text for process in self.processes for line in process.complaints]
        assert not complaints, complaints


@contextmanager
def dra_node(*, alone: bool = True) -> Iterator[DraNode]:
    """A node whose kubelet and API server run; `alone`: without a device manager."""
    with tempfile.TemporaryDirectory(prefix="sgpud-", dir="/tmp") as folder:
        api = ApiServer()
        api.start()
        kubelet = DraKubelet(Path(folder) / "kubelet", api.delete_all, alone=alone)
        kubelet.start()
        made = DraNode(Path(folder), api, kubelet)
        try:
            yield made
        finally:
            made.close()
            kubelet.stop()
            api.stop()
