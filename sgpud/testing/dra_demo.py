"""Dynamic Resource Allocation, to watch: the daemon, a stand-in kubelet and API server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sgpud.core.dra.allocator import DeviceRequest
from sgpud.core.dra.claims import MEMORY
from sgpud.testing.api_server import ApiServer
from sgpud.testing.dra_kubelet import DraKubelet

DRIVER = "gpu.deepomatic.com"
GIB = 2**30
WITHIN = 60.0
"""Seconds that any step may take on a slow machine."""
_GPUS = """\
[[gpu]]
product = "NVIDIA A100-SXM4-40GB"
memory = "40GiB"
count = 2
"""


def main() -> int:
    """Show it; the exit status is 0 if all went as it should."""
    with tempfile.TemporaryDirectory(prefix="sgpud-demo-") as name:
        return _DraDemo(Path(name)).run()


class _DraDemo:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cdi = folder / "cdi"
        self._log = folder / "sgpud.log"
        self._api = ApiServer()
        self._kubelet = DraKubelet(folder / "kubelet", self._api.delete_all)
        self._step = 0
        self._claims: list[dict[str, Any]] = []
        self._later: list[subprocess.Popen[bytes]] = []

    def run(self) -> int:
        (self._folder / "gpus.toml").write_text(_GPUS)
        (self._folder / "sgpud.toml").write_text(
            '[sharing]\nduplication_factor = 4\nplacement = "packed"\n[log]\nformat = "text"\n'
        )
        self._api.start()
        self._kubelet.start()
        self._say("Start sgpud with two fake GPUs, beside a stand-in kubelet and API server")
        began = time.monotonic()
        daemon = self._start()
        try:
            self._wait(lambda: bool(self._api.slices), "the ResourceSlice is published")
            self._tell(f"registered, then published after {_ms(time.monotonic() - began)}")
            self._show()
            self._place()
            self._restart_kubelet()
            self._kill_and_unprepare(daemon)
        except BaseException:
            print(self._log.read_text(), file=sys.stderr)
            raise
        finally:
            for process in (daemon, *self._later):
                if process.poll() is None:
                    process.kill()
                process.wait()
            self._kubelet.stop()
            self._api.stop()
        print("\nAll of it worked.")
        return 0

    def _place(self) -> None:
        self._say(
            "Five pods with limits: deepomatic.com/shared-gpu: 1, as the scheduler packs them"
        )
        self._claims = [
            self._pod(f"pod-{number}", DeviceRequest("container-0-request-0"))
            for number in range(5)
        ]
        self._say("A pod with a claim for 30 GiB, and one that does not fit any more")
        self._pod("train", DeviceRequest("gpu", 1, {MEMORY: 30 * GIB}))
        big = DeviceRequest("gpu", 1, {MEMORY: 41 * GIB})
        if self._api.schedule("too-big", big) is not None:
            raise SystemExit("41 GiB fit on a GPU with 40")
        self._tell("too-big: stays Pending, nothing fails on the node")

    def _pod(self, name: str, request: DeviceRequest) -> dict[str, Any]:
        claim = self._api.schedule(name, request)
        if claim is None:
            raise SystemExit(f"no GPU has room for {name}")
        (error,) = self._kubelet.prepare([claim]).values()
        if error:
            raise SystemExit(error)
        said = self._kubelet.environment(claim["metadata"]["uid"], self._cdi)
        memory = said.get("SGPUD_MEMORY_BYTES")
        self._tell(f"{name}: {said['SGPUD_GPU_UUIDS']}{f', {memory} bytes' if memory else ''}")
        return claim

    def _restart_kubelet(self) -> None:
        self._say("Restart the kubelet: it deletes every ResourceSlice of its node")
        before = set(self._api.slices)
        began = time.monotonic()
        self._kubelet.restart()
        self._wait(lambda: bool(set(self._api.slices) - before), "the slice is there again")
        self._tell(f"published again {_ms(time.monotonic() - began)} after the restart")

    def _kill_and_unprepare(self, daemon: subprocess.Popen[bytes]) -> None:
        self._say("Kill sgpud, start it again, and end a pod")
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        self._kubelet.drivers.clear()
        self._later.append(self._start())
        registered = self._kubelet.wait(lambda: DRIVER in self._kubelet.drivers, WITHIN)
        if not registered:
            raise SystemExit("the kubelet did not register the driver again")
        first = self._claims[0]
        (error,) = self._kubelet.unprepare([first]).values()
        specs = len(list(self._cdi.glob("*.json")))
        self._tell(f"unprepared {first['metadata']['name']}{error}, CDI specs left: {specs}")
        if error or specs != len(self._claims):
            raise SystemExit("that is not right")

    def _start(self) -> subprocess.Popen[bytes]:
        folder = self._folder
        kubeconfig = self._api.write_kubeconfig(folder / "kubeconfig")
        options = {
            "--config": folder / "sgpud.toml",
            "--fake-gpus": folder / "gpus.toml",
            "--plugin-dir": folder / "kubelet" / "device-plugins",
            "--state-dir": folder / "state",
            "--run-dir": folder / "run",
        }
        settings = {
            "kubelet.api": "dra",
            "dra.kubeconfig": str(kubeconfig),
            "dra.node_name": self._api.node,
            "dra.cdi_dir": str(self._cdi),
        }
        words = [str(word) for pair in options.items() for word in pair]
        for key, value in settings.items():
            words += ["--set", f"{key}={json.dumps(value)}"]
        environment = {
            name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ
        }
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sgpud", "run", *words], env=environment, stderr=log
            )

    def _wait(self, condition: Any, what: str) -> None:
        if not self._api.wait(condition, WITHIN):
            raise SystemExit(f"it did not happen that {what}")

    def _show(self) -> None:
        for device in self._api.devices():
            memory, shares = device.capacities[MEMORY], device.capacities["shares"]
            self._tell(f"{device.name}: {memory.value // GIB} GiB, {shares.value} places")

    def _say(self, text: str) -> None:
        self._step += 1
        print(f"\n{self._step}. {text}", flush=True)

    def _tell(self, text: str) -> None:
        print(f"   {text}", flush=True)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
