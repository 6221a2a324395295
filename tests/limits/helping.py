"""A helper that runs, on the stub NVML and a tree of cgroups in a folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field

from sgpud.limits.helper.main import NAME
from sgpud.limits.spawn import command
from tests.e2e.waiting import until
from tests.gpus.nvml.stub import A100, GPU_A, Stub
from tests.limits.tree import UID, CgroupTree

GIB = 2**30
SLOWLY = 60.0
"""Seconds that an answer may take on a machine that does other work too."""


@define
class Helper:
    """A helper, or the place of one."""

    stub: Stub
    tree: CgroupTree
    run: Path
    state: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.run / NAME

    def limits(self, backend: str, *more: str) -> None:
        """What the driver limits memory with; more lines follow the one GPU's."""
        self.stub.write(f"limits {backend}", A100.rstrip(), *more)

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run it; it is killed at the end."""
        words = command(str(self.run), str(self.state), str(self.tree.root))
        with subprocess.Popen(words, env=self.stub.env) as process:
            self.process = process
            try:
                until(self._listens, "the helper listens", SLOWLY)
                yield process
            finally:
                process.kill()

    def ask(self, **request: object) -> dict[str, Any]:
        """The answer to a request."""
        return self.send(json.dumps(request).encode() + b"\n")

    def send(self, text: bytes) -> dict[str, Any]:
        """The answer to these bytes; empty if there is none."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(SLOWLY)
            connection.connect(os.fspath(self.socket))
            connection.sendall(text)
            received = b""
            while not received.endswith(b"\n") and (data := connection.recv(65536)):
                received += data
        answer: dict[str, Any] = json.loads(received) if received else {}
        return answer

    def set(self, cgroup: Path, size: int = GIB, pod: str = UID, **more: object) -> dict[str, Any]:
        """Have a pod limited."""
        target = {"pod": pod, "cgroup": str(cgroup), "gpu": GPU_A}
        return self.ask(**{"op": "set", **target, "bytes": size, **more})

    def clear(self, cgroup: Path, pod: str = UID) -> dict[str, Any]:
        """Have a pod limited no more."""
        return self.ask(op="clear", pod=pod, cgroup=str(cgroup), gpu=GPU_A)

    def in_force(self) -> dict[str, int]:
        """What the driver limits: bytes by cgroup."""
        table = self.stub.script.with_name(self.stub.script.name + ".limits")
        lines = table.read_text().splitlines() if table.exists() else []
        return {path: int(hard) for _, _, hard, path in (line.split(" ", 3) for line in lines)}

    def foreign(self, cgroup: Path, size: int) -> None:
        """Somebody else limits a cgroup."""
        table = self.stub.script.with_name(self.stub.script.name + ".limits")
        before = table.read_text() if table.exists() else ""
        table.write_text(f"{before}0 0 {size} {cgroup}\n")

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(os.fspath(self.socket))
            except OSError:
                return False
        return True
