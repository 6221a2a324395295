"""A node to measure on: a folder with a stand-in kubelet, and real processes on its sockets."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from benchmarks.report import NotMeasuredError
from sgpud.testing.kubelet.records import Attempt, DeviceList
from sgpud.testing.kubelet.stand_in import StandInKubelet

if TYPE_CHECKING:
    from typing_extensions import Self

RESOURCE = "deepomatic.com/shared-gpu"
FLOOR = "example.com/floor"
WITHIN = 20.0
"""Seconds that anything may take before it counts as broken."""


class Process:
    """One process that was started for a measurement."""

    def __init__(self, words: list[str], log: Path, environment: Mapping[str, str]) -> None:
        """Start `python -m words`; its error output goes to `log`."""
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        self._log = log
        with log.open("wb") as errors:
            self.began = time.monotonic()
            self._process = subprocess.Popen(
                [sys.executable, "-m", *words],
                env={**kept, **environment},
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self.pid = self._process.pid

    def said(self, word: str) -> float:
        """Monotonic seconds at which the process has printed its next line, which is `word`."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], WITHIN)
        at = time.monotonic()
        if not ready or self._process.stdout.readline().strip() != word.encode():
            raise NotMeasuredError(f"{word!r} was not said; {self._log.read_text()[-800:]}")
        return at

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        self._process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """End it; monotonic seconds at which it was gone."""
        self.send(number)
        try:
            self._process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(WITHIN)
        gone = time.monotonic()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return gone


class Node:
    """So many GPUs with so many shares each, a kubelet, and whatever is started on them."""

    def __init__(self, gpus: int, shares: int) -> None:
        """Make it; `with` starts the kubelet and ends everything."""
        self.gpus, self.shares = gpus, shares
        self._temporary = tempfile.TemporaryDirectory(prefix="sgpud-bench-")
        self.folder = Path(self._temporary.name)
        self.kubelet = StandInKubelet(self.folder / "device-plugins")
        self._processes: list[Process] = []
        (self.folder / "gpus.toml").write_text(
            f'[[gpu]]\nproduct = "NVIDIA A100-SXM4-40GB"\nmemory = "40GiB"\ncount = {gpus}\n'
        )
        self.configure(shares)

    def __enter__(self) -> Self:
        """Start the kubelet."""
        self.kubelet.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End every process and the kubelet, and remove the folder."""
        for process in self._processes:
            process.send(signal.SIGTERM)
        for process in self._processes:
            process.stop()
        self.kubelet.stop()
        self._temporary.cleanup()

    def configure(self, shares: int, more: str = "") -> None:
        """Write the configuration file; the daemon reads it when it starts or on SIGHUP."""
        self._write(f"duplication_factor = {shares}\n{more}")

    def share_memory(self, size: int) -> None:
        """Share GPUs of 80 GiB in memory shares of so many MiB, all of them listed Healthy."""
        gpus = self.folder / "gpus.toml"
        gpus.write_text(gpus.read_text().replace('"40GiB"', '"80GiB"'))
        self._write(f'share_memory = "{size}MiB"\nadvertise = "all"\nallow_large_status = true\n')

    def _write(self, sharing: str) -> None:
        new = self.folder / "sgpud.toml.new"
        new.write_text(
            f'[sharing]\n{sharing}[container]\nmethod = "nvidia-runtime"\n[log]\nformat = "text"\n'
        )
        new.replace(self.folder / "sgpud.toml")

    def sgpud(self) -> Process:
        """Start a daemon on fake GPUs."""
        return self._sgpud({}, fake_gpus=True)

    def sgpud_on_nvml(self, environment: Mapping[str, str]) -> Process:
        """Start a daemon on the NVML library that is found in this environment."""
        return self._sgpud(environment, fake_gpus=False)

    def _sgpud(self, environment: Mapping[str, str], *, fake_gpus: bool) -> Process:
        folder = self.folder
        options = {
            "--config": folder / "sgpud.toml",
            "--plugin-dir": folder / "device-plugins",
            "--state-dir": folder / "state",
            "--run-dir": folder / "run",
        }
        if fake_gpus:
            options["--fake-gpus"] = folder / "gpus.toml"
        words = [str(word) for pair in options.items() for word in pair]
        # As the unit and the image do.
        environment = {"MALLOC_ARENA_MAX": "1", **environment}
        return self._start(["sgpud", "run", *words], "sgpud", environment)

    def floor(self) -> Process:
        """Start the bare plugin."""
        words = ["--gpus", str(self.gpus), "--shares", str(self.shares), "--resource", FLOOR]
        return self._start(["benchmarks.floor", str(self.kubelet.socket), *words], "floor", {})

    def skeleton(self) -> Process:
        """Start the bare skeleton."""
        socket = self.folder / f"skeleton-{len(self._processes)}.sock"
        return self._start(["benchmarks.skeleton", str(socket)], "skeleton", {})

    def registered(self, resource: str, since: float) -> tuple[Attempt, DeviceList]:
        """The Register call and the first list of what serves a resource since then.

        A Register call without a list was one that a stopping kubelet did not answer any more.
        """
        try:
            devices = self.kubelet.next_devices(resource, WITHIN)
            while devices.at < since:
                devices = self.kubelet.next_devices(resource, WITHIN)
        except TimeoutError as problem:
            raise NotMeasuredError(f"{resource}: {problem}; {self._said()}") from problem
        calls = [call for call in self.kubelet.attempts if call.endpoint == devices.endpoint]
        return calls[-1], devices

    def socket(self, resource: str) -> str:
        """The socket file that serves a resource now."""
        return str(self.kubelet.plugin(resource).socket)

    def ids(self, resource: str) -> list[str]:
        """The ids that may be allocated, in an order that means nothing."""
        listed = self.kubelet.devices(resource)
        return sorted((share for share, one in listed.items() if one.health == "Healthy"), key=hash)

    def standby(self, nvml: Mapping[str, str] | None = None) -> Process:
        """Start a daemon beside one that serves; it is ready to take over when this returns.

        On fake GPUs, or on the NVML library that is found in the environment `nvml`.
        """
        address = str(self.folder / f"notify-{len(self._processes)}")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(address)
            told.settimeout(WITHIN)
            environment = {**(nvml or {}), "NOTIFY_SOCKET": address}
            process = self._sgpud(environment, fake_gpus=nvml is None)
            try:
                while b"READY=1" not in told.recv(4096):
                    continue
            except TimeoutError as problem:
                raise NotMeasuredError(f"the standby is not ready; {self._said()}") from problem
        return process

    def _start(self, words: list[str], name: str, environment: Mapping[str, str]) -> Process:
        log = self.folder / f"{name}-{len(self._processes)}.log"
        process = Process(words, log, environment)
        self._processes.append(process)
        return process

    def _said(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return " | ".join(f"{log.name}: {log.read_text()[-400:]}" for log in logs)
