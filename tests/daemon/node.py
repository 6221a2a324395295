"""A node for the daemon: folders of its own, a configuration, fake GPUs, a kubelet."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from sgpud.node.store import unsealed
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.process import SOURCE, Process
from tests.daemon.record import WITHIN

if TYPE_CHECKING:
    from typing_extensions import Self

RESOURCE = "deepomatic.com/shared-gpu"
OTHER = "example.com/other-gpu"
A = "GPU-aaaaaaaa-0000-4000-8000-00000000000a"
B = "GPU-bbbbbbbb-0000-4000-8000-00000000000b"
GPUS = f"""
[[gpu]]
uuid = "{A}"
product = "NVIDIA A100-SXM4-40GB"
memory = "40GiB"
numa = 0

[[gpu]]
uuid = "{B}"
product = "NVIDIA L4"
memory = "24GiB"
numa = 1
"""


def shares(*counts: int) -> frozenset[str]:
    """The ids of so many shares of A, and of B."""
    return frozenset(
        f"{uuid}::{number}"
        for uuid, count in zip((A, B), counts, strict=False)
        for number in range(count)
    )


def of(uuid: str, ids: Collection[str]) -> set[str]:
    """Those ids that are shares of one GPU."""
    return {share for share in ids if share.startswith(f"{uuid}::")}


class Node:
    """Folders and files for one node, and every sgpud that runs on it."""

    def __init__(self) -> None:
        """Make the folders: directly below /tmp, since a socket's path may have 107 bytes."""
        self._folder = tempfile.TemporaryDirectory(prefix="sgpud-", dir="/tmp")
        self.root = Path(self._folder.name)
        self.plugin_dir = self.root / "plugins"
        self.pods = self.root / "pods" / "kubelet.sock"
        self.config = self.root / "sgpud.toml"
        self.gpus = self.root / "gpus.toml"
        self.state = self.root / "state"
        self.run = self.root / "run"
        self.control = self.run / "control.sock"
        self.processes: list[Process] = []
        self.gpus.write_text(GPUS)
        self.configure()

    def __enter__(self) -> Self:
        """Ready to use."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End every process; AssertionError if one has logged a traceback.

        An error gets what the processes said as an AssertionError around it.
        """
        for process in self.processes:
            process.close()
        self._folder.cleanup()
        complaints = [str(line) for process in self.processes for line in process.complaints]
        if kind is not None and issubclass(kind, Exception):
            raise AssertionError(self.logs()) from error
        assert not complaints, "\n".join(complaints)

    def logs(self) -> str:
        """What the processes said, to show with a failure."""
        return "\n".join(
            f"{number}: {line}"
            for number, process in enumerate(self.processes)
            for line in process.log.items
        )

    def configure(
        self,
        factor: int = 10,
        resource: str = RESOURCE,
        sharing: str = "",
        rest: str = "",
        *,
        kubelet: str = "",
        level: str = "info",
    ) -> None:
        """Write the configuration, whole in one moment; a reload makes it apply."""
        self.write(self.document(factor, resource, sharing, rest, kubelet=kubelet, level=level))

    def document(
        self,
        factor: int = 10,
        resource: str = RESOURCE,
        sharing: str = "",
        rest: str = "",
        *,
        kubelet: str = "",
        level: str = "info",
    ) -> str:
        """A configuration for this node; the last ones are more lines of their sections."""
        return f"""
[sharing]
resource = "{resource}"
duplication_factor = {factor}
{sharing}
[kubelet]
pod_resources = "{self.pods}"
{kubelet}
[log]
level = "{level}"
{rest}
"""

    def write(self, text: str) -> None:
        """Write this configuration, whole in one moment."""
        draft = self.root / "draft.toml"
        draft.write_text(text)
        draft.replace(self.config)

    def kubelet(self, dial_timeout: float = 10.0) -> StandInKubelet:
        """A kubelet of this node, not started."""
        return StandInKubelet(self.plugin_dir, self.pods, dial_timeout=dial_timeout)

    def start(
        self,
        *words: str,
        fake_gpus: bool = True,
        environment: Mapping[str, str] | None = None,
        python: Sequence[str] = (),
        before: Sequence[str] = (),
    ) -> Process:
        """Start an sgpud; `words` are more of its arguments."""
        options = {
            "--config": self.config,
            "--plugin-dir": self.plugin_dir,
            "--state-dir": self.state,
            "--run-dir": self.run,
        }
        if fake_gpus:
            options["--fake-gpus"] = self.gpus
        given = [str(word) for pair in options.items() for word in pair]
        notices = self.root / f"notify-{len(self.processes)}"
        process = Process(
            [*given, *words], notices, self.control, environment or {}, python, before
        )
        self.processes.append(process)
        return process

    def command(
        self, *words: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `sgpud WORDS` to its end."""
        return subprocess.run(
            [sys.executable, "-m", "sgpud", *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            env={**os.environ, "PYTHONPATH": SOURCE, **(environment or {})},
        )

    def has_endpoints(self, count: int) -> None:
        """Wait until there are so many socket files: one goes a moment after its stream."""
        pause, end = threading.Event(), time.monotonic() + WITHIN
        while len(self.endpoints()) != count:
            assert time.monotonic() < end, f"not {count} but {self.endpoints()}"
            pause.wait(0.02)

    def saved(self, name: str, wanted: Callable[[bytes], object]) -> None:
        """Wait until a file of the state directory has such a content: it is written in a thread.

        Its checksum is part of what is looked at.
        """
        pause, end = threading.Event(), time.monotonic() + WITHIN
        file = self.state / name
        while not (file.exists() and wanted(unsealed(file.read_bytes()) or b"")):
            assert time.monotonic() < end, f"{name} never became so"
            pause.wait(0.02)

    def endpoints(self) -> set[str]:
        """The socket files of sgpud in the plugin directory."""
        return {path.name for path in self.plugin_dir.glob("sgpud-*")}
