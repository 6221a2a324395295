"""The main job, to watch: the real daemon with fake GPUs against the stand-in kubelet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from sgpud.testing.kubelet.records import Container, DeviceList
from sgpud.testing.kubelet.stand_in import StandInKubelet

RESOURCE = "deepomatic.com/shared-gpu"
WITHIN = 15.0
"""Seconds that any step may take on a slow machine."""
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
        self._folder = folder
        self._config = folder / "sgpud.toml"
        self._log = folder / "sgpud.log"
        self._kubelet = StandInKubelet(folder / "device-plugins")
        self._step = 0

    def run(self) -> int:
        self._write(100)
        fake_gpus = self._folder / "gpus.toml"
        fake_gpus.write_text(_GPUS)
        with self._kubelet:
            self._say("Start sgpud with three fake GPUs, beside a stand-in kubelet")
            started = time.monotonic()
            daemon = self._start(fake_gpus)
            try:
                self._register(started)
                held = self._place()
                self._reload(held)
                self._restart_kubelet(held)
            except BaseException:
                daemon.kill()
                daemon.wait()
                print(self._log.read_text(), file=sys.stderr)
                raise
            return self._stop(daemon)

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
        self._write(10)
        answer = subprocess.run(
            [sys.executable, "-m", "sgpud", "reload", "--run-dir", str(self._folder / "run")],
            check=True,
            capture_output=True,
            text=True,
            timeout=WITHIN,
        )
        for line in answer.stdout.splitlines():
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

    def _stop(self, daemon: subprocess.Popen[bytes]) -> int:
        self._say("Stop sgpud")
        began = time.monotonic()
        daemon.send_signal(signal.SIGTERM)
        status = daemon.wait(timeout=WITHIN)
        left = sorted(path.name for path in self._kubelet.plugin_dir.glob("sgpud-*"))
        self._tell(
            f"ended with status {status} after {_ms(time.monotonic() - began)}, "
            f"sockets left: {', '.join(left) or 'none'}"
        )
        self._kubelet.assert_no_panics()
        print("\nAll of it worked." if status == 0 and not left else "\nThat is not right.")
        return status or len(left)

    def _start(self, fake_gpus: Path) -> subprocess.Popen[bytes]:
        folder = self._folder
        options = {
            "--config": self._config,
            "--fake-gpus": fake_gpus,
            "--plugin-dir": folder / "device-plugins",
            "--state-dir": folder / "state",
            "--run-dir": folder / "run",
        }
        words = [str(word) for pair in options.items() for word in pair]
        environment = {
            name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ
        }
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sgpud", "run", *words], env=environment, stderr=log
            )

    def _write(self, factor: int) -> None:
        self._config.write_text(
            f'[sharing]\nresource = "{RESOURCE}"\nduplication_factor = {factor}\n\n'
            '[log]\nformat = "text"\n'
        )

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


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
