"""Memory limits of pods that hold claims, from one daemon to the next."""

from __future__ import annotations

import json
import socketserver
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from sgpud.core.dra.allocator import DeviceRequest
from tests.dra.node import DraNode
from tests.e2e.waiting import until
from tests.gpus.nvml.stub import A100, GPU_A, Stub

pytestmark = pytest.mark.slow
ONE = DeviceRequest("container-0-request-0")
MEMORY = '[sharing]\nshare_memory = "1GiB"\n[container]\nmethod = "nvidia-runtime"\n'
SLOWLY = 60.0
"""Seconds for a look: one comes every 5 s."""


@contextmanager
def helper(socket: Path, pod: str) -> Iterator[list[str]]:
    """A helper that has limited a pod; what it is asked."""
    asked: list[str] = []
    cap = {"pod": pod, "cgroup": "/sys/fs/cgroup/kubepods/pod", "gpu": GPU_A, "bytes": 2**30}
    cap |= {"late": False, "limit": 2**30, "used": 0, "problem": ""}

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(json.loads(self.rfile.readline())["op"])
            gpus = {GPU_A: {"backend": "misc", "problem": ""}}
            answer: dict[str, Any] = {"ok": True, "caps": [cap], "gpus": gpus}
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    with socketserver.UnixStreamServer(str(socket), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def test_a_standby_that_takes_over_lifts_no_limit_of_a_pod_with_a_claim(
    node: DraNode, built: Callable[..., Path]
) -> None:
    """It knows the GPUs by then, but reads the claims that were prepared only now."""
    stub = Stub(node.root / "script", built(), node.root)
    stub.write("driver 615.71.09", "limits misc", A100)
    first = node.start(config=MEMORY, environment=stub.env)
    node.wait(lambda: bool(node.api.slices), "a slice is published")
    node.registered()
    claim = node.api.schedule("pod", ONE, limits=True)
    assert claim is not None
    assert list(node.kubelet.prepare([claim]).values()) == [""], node.logs()
    (pod,) = claim["status"]["reservedFor"]
    with helper(node.run(0) / "limits.sock", pod["uid"]) as asked:
        second = node.start(config=MEMORY, run=0, environment=stub.env)
        second.said("standing by")
        second.ready()
        first.end()
        before = asked.count("get")
        until(lambda: asked.count("get") > before, "it has looked", SLOWLY)
        assert "clear" not in asked
