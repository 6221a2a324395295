"""The main job, to watch: the real daemon with fake GPUs against the stand-in kubelet."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from sgpud.testing.kubelet.records import Container, DeviceList
from sgpud.testing.local_node import WITHIN, LocalNode

RESOURCE = "deepomatic.com/shared-gpu"
_GPUS = """\
[[gpu]]
product = "NVIDIA A100-SXM4-40GB"
memory = "40GiB"
count = 2

[[gpu]]
product = "NVIDIA L4"
memory = "24GiB"
"""
_PODS = ("train-a", "train-b", "chat", "search")


def main() -> int:
    """Show it; the exit status is 0 if all went as it should."""
    with tempfile.TemporaryDirectory(prefix="sgpud-demo-") as name:
        return _Demo(Path(name)).run()


class _Demo:
    def __init__(self, folder: Path) -> None:
        self._node = LocalNode(folder, _config(100), _GPUS)
        self._kubelet = self._node.kubelet
        self._step = 0

    def run(self) -> int:
        self._say("Start sgpud with three fake GPUs, beside a stand-in kubelet")
        started = time.monotonic()
        with self._node:
            self._register(started)
            held = self._place()
            self._reload(held)
            self._restart_kubelet(held)
            return self._stop()

    def _register(self, started: float) -> None:
        registration = self._kubelet.next_registration(timeout=WITHIN)
        self._tell(f"registered {registration.resource} after {_ms(registration.at - started)}")
        self._show(self._kubelet.next_devices(RESOURCE, timeout=WITHIN))

    def _place(self) -> dict[str, Container]:
        self._say("Place four containers, each asking for one share")
        held = {}
        for pod in _PODS:
            container = self._kubelet.admit(f"uid-{pod}", "demo", pod, "main", {RESOURCE: 1})
            held[pod] = container
            self._tell(f"{pod}:")
            self._tell(f"  share {', '.join(container.ids[RESOURCE])}")
            for variable, value in sorted(container.envs.items()):
                self._tell(f"  {variable}={value}")
        return held

    def _reload(self, held: Mapping[str, Container]) -> None:
        self._say("Edit sgpud.toml from 100 to 10 shares per GPU and reload, under those holders")
        self._node.configure(_config(10))
        for line in self._node.command("reload").splitlines():
            self._tell(line)
        devices = self._kubelet.next_devices(RESOURCE, timeout=WITHIN)
        self._show(devices)
        self._check_held(devices, held)
        calls = len(self._kubelet.attempts)
        self._tell(f"on the stream that was there: {calls} Register call since the start")

    def _restart_kubelet(self, held: Mapping[str, Container]) -> None:
        self._say("Restart the kubelet: it wipes every socket and forgets every plugin")
        self._kubelet.restart()
        back = time.monotonic()
        self._kubelet.next_registration(timeout=WITHIN)
        devices = self._kubelet.next_devices(RESOURCE, timeout=WITHIN)
        self._tell(f"registered and listed again {_ms(devices.at - back)} after kubelet.sock")
        self._show(devices)
        self._check_held(devices, held)

    def _stop(self) -> int:
        self._say("Stop sgpud")
        began = time.monotonic()
        status = self._node.stop()
        left = sorted(path.name for path in self._kubelet.plugin_dir.glob("sgpud-*"))
        self._tell(
            f"ended with status {status} after {_ms(time.monotonic() - began)}, "
            f"sockets left: {', '.join(left) or 'none'}"
        )
        print("\nAll of it worked." if status == 0 and not left else "\nThat is not right.")
        return status or len(left)

    def _say(self, text: str) -> None:
        self._step += 1
        print(f"\n{self._step}. {text}", flush=True)

    def _tell(self, text: str) -> None:
        print(f"   {text}", flush=True)

    def _show(self, devices: DeviceList) -> None:
        """The list as the kubelet has it now, GPU by GPU."""
        gpus: dict[str, list[str]] = {}
        for share, listed in devices.devices.items():
            gpus.setdefault(share.partition("::")[0], []).append(listed.health)
        for uuid, healths in gpus.items():
            healthy = healths.count("Healthy")
            leaving = len(healths) - healthy
            drains = f", {leaving} draining (listed Unhealthy)" if leaving else ""
            self._tell(f"{uuid}: {healthy} shares{drains}")
        capacity, free = self._kubelet.capacity(RESOURCE), self._kubelet.allocatable(RESOURCE)
        self._tell(f"the node shows capacity {capacity}, allocatable {free}")

    def _check_held(self, devices: DeviceList, held: Mapping[str, Container]) -> None:
        ids = {share for container in held.values() for share in container.ids[RESOURCE]}
        kept = ids & devices.healthy
        self._tell(f"held shares still listed Healthy: {len(kept)} of {len(ids)}")
        if kept != ids:
            raise SystemExit(f"lost: {', '.join(sorted(ids - kept))}")


def _config(factor: int) -> str:
    return (
        f'[sharing]\nresource = "{RESOURCE}"\nduplication_factor = {factor}\n\n'
        '[log]\nformat = "text"\n'
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
