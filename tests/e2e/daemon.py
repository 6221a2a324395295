"""The daemon under test: a process of its own, with fake GPUs and folders of its own."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import define, frozen

import sgpud
from sgpud.serve.control.client import CONTROL, ask
from tests.e2e.waiting import DidNotHappenError

RESOURCE = "deepomatic.com/shared-gpu"
UUIDS = (
    "GPU-00000000-0000-4000-8000-00000000000a",
    "GPU-00000000-0000-4000-8000-00000000000b",
)
GIB = 2**30
FAKE_GPUS = "".join(
    f"""
[[gpu]]
uuid = "{uuid}"
product = "NVIDIA L4"
memory = "24GiB"
"""
    for uuid in UUIDS
)


def shares(factor: int) -> frozenset[str]:
    """The ids that a node without holders lists at this `duplication_factor`."""
    return frozenset(f"{uuid}::{number}" for uuid in UUIDS for number in range(factor))


class _Notified:
    """What the daemon tells a service manager, read as it comes: a full socket would stop it."""

    def __init__(self, address: Path) -> None:
        address.unlink(missing_ok=True)
        self._ready: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        self._thread = threading.Thread(target=self._read, name="notifications")
        self._thread.start()

    def _read(self) -> None:
        while message := self._socket.recv(4096):
            if b"READY=1" in message.split(b"\n"):
                self._ready.put(None)

    def forget(self) -> None:
        """Let `wait_ready` count only what is said from now on."""
        while not self._ready.empty():
            self._ready.get()

    def wait_ready(self) -> None:
        """Wait for the next READY=1; queue.Empty when none comes in 30 s."""
        self._ready.get(timeout=30)

    def close(self) -> None:
        """End the reading."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()


@frozen
class _Running:
    process: subprocess.Popen[bytes]
    notified: _Notified


@define
class Daemon:
    """One instance of sgpud; `name` tells two on one node apart."""

    root: Path
    plugin_dir: Path
    name: str = "sgpud"
    settings: tuple[str, ...] = ()
    """Keys that are set over the file, as `--set` takes them."""
    options: tuple[str, ...] = ()
    """More options of `sgpud run`."""
    wrap: Callable[..., Sequence[str]] = lambda *words: words
    """Makes of a command line one that runs elsewhere, e.g. in a node's namespaces."""
    _running: _Running | None = None

    @property
    def log(self) -> Path:
        """What every process of this instance has written."""
        return self.root / f"{self.name}.log"

    @property
    def _home(self) -> Path:
        return self.root / self.name

    def configure(self, factor: int, rest: str = "") -> None:
        """Write the configuration, whole in one moment; a reload makes it apply."""
        self._home.mkdir(exist_ok=True)
        draft = self._home / "draft.toml"
        draft.write_text(f"[sharing]\nduplication_factor = {factor}\n{rest}")
        draft.rename(self._home / "sgpud.toml")

    def start(self) -> None:
        """Start it; returns when it says that it is ready."""
        if not (self._home / "sgpud.toml").exists():
            self.configure(100)
        (self._home / "gpus.toml").write_text(FAKE_GPUS)
        address = self._home / "notify"
        notified = _Notified(address)
        command = [sys.executable, "-m", "sgpud", "run"]
        command += [word for setting in self.settings for word in ("--set", setting)]
        command += self.options
        command += ["--config", str(self._home / "sgpud.toml")]
        command += ["--fake-gpus", str(self._home / "gpus.toml")]
        command += ["--plugin-dir", str(self.plugin_dir)]
        pod_resources = self.plugin_dir.parent / "pod-resources" / "kubelet.sock"
        command += ["--set", f'kubelet.pod_resources="{pod_resources}"']
        command += ["--state-dir", str(self._home / "state"), "--run-dir", str(self._home / "run")]
        source = str(Path(sgpud.__file__).parents[1])
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.wrap(*command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "NOTIFY_SOCKET": str(address), "PYTHONPATH": source},
            )
        self._running = _Running(process, notified)
        self._wait_ready()

    def _wait_ready(self) -> None:
        assert self._running is not None
        try:
            self._running.notified.wait_ready()
        except queue.Empty:
            text = self.log.read_text(errors="replace")[-2000:]
            raise DidNotHappenError(f"{self.name} did not become ready; it wrote: {text}") from None

    def hang_up(self) -> None:
        """Send SIGHUP, and wait for nothing."""
        assert self._running is not None
        self._running.process.send_signal(signal.SIGHUP)

    def reload(self, factor: int, rest: str = "") -> None:
        """Change the configuration; returns when the daemon has applied it."""
        assert self._running is not None
        self.configure(factor, rest)
        self._running.notified.forget()
        self.hang_up()
        self._wait_ready()

    def holders(self, resource: str) -> frozenset[str]:
        """Who holds shares of a resource, as this instance knows it: `namespace/pod/container`."""
        view = ask(self._home / "run" / CONTROL, "plan", timeout=30)["view"]
        return frozenset(
            f"{holder['namespace']}/{holder['pod']}/{holder['container']}"
            for pool in view["pools"]
            if pool["resource"] == resource
            for gpu in pool["gpus"]
            for holder in gpu["holders"]
        )

    def registration(self, resource: str) -> str:
        """Where the registration of a resource stands, as this instance knows it."""
        view = ask(self._home / "run" / CONTROL, "plan", timeout=30)["view"]
        (found,) = [pool["registration"] for pool in view["pools"] if pool["resource"] == resource]
        return str(found)

    def about(self, verb: str, gpu: str) -> None:
        """Say something about a GPU: cordon, uncordon, heal."""
        ask(self._home / "run" / CONTROL, verb, {"gpu": gpu}, timeout=30)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal; its exit status, as subprocess counts it."""
        assert self._running is not None
        running, self._running = self._running, None
        running.process.send_signal(how)
        try:
            return running.process.wait(10)
        except subprocess.TimeoutExpired:
            running.process.kill()
            running.process.wait()
            raise
        finally:
            running.notified.close()

    def clear(self) -> None:
        """Kill it if it still runs."""
        if self._running is not None:
            self.stop(signal.SIGKILL)
