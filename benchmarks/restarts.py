"""How long the node is without shares when the kubelet, or the daemon, is replaced."""

import signal
import threading
import time
from collections.abc import Iterator

from benchmarks.appearing import Appearing
from benchmarks.node import RESOURCE, Node
from benchmarks.report import Number, Target, median

APART = 0.15
"""Seconds a kubelet is away. A real one takes longer; the stream that it had ends meanwhile."""


def restart(*, quick: bool) -> Iterator[Number]:
    """From a new kubelet.sock to the first list."""
    register, listed = [], []
    with Node(8, 100) as node:
        node.registered(RESOURCE, node.sgpud().began)
        for _ in range(20 if quick else 100):
            node.kubelet.stop()
            threading.Event().wait(APART)
            with Appearing(node.kubelet.plugin_dir, node.kubelet.socket.name) as socket:
                began = time.monotonic()
                node.kubelet.start()
                attempt, devices = node.registered(RESOURCE, began)
            register.append((attempt.at - socket.at) * 1000)
            listed.append((devices.at - socket.at) * 1000)
    yield Number("new kubelet.sock to Register, p50", "ms", median(register))
    yield Number(
        "new kubelet.sock to first list, p50", "ms", median(listed), target=Target(12, "12 ms")
    )
    yield Number(
        f"new kubelet.sock to first list, worst of {len(listed)}",
        "ms",
        max(listed),
        target=Target(100, "100 ms"),
    )


def takeover(*, quick: bool) -> Iterator[Number]:
    """From the first one's end to the standby's Register, and how long the node had no list."""
    for how in (signal.SIGKILL, signal.SIGTERM):
        register, listed = [], []
        with Node(8, 100) as node:
            serving = node.sgpud()
            node.registered(RESOURCE, serving.began)
            for _ in range(3 if quick else 8):
                standby = node.standby()
                told = time.monotonic()
                gone = serving.stop(how)
                attempt, devices = node.registered(RESOURCE, told)
                # A killed process has ended before it can be seen to be gone.
                register.append((attempt.at - (told if how is signal.SIGKILL else gone)) * 1000)
                listed.append((devices.at - told) * 1000)
                serving = standby
        yield Number(
            f"{how.name}: end to the standby's Register, worst",
            "ms",
            max(register),
            target=Target(50, "50 ms"),
        )
        yield Number(f"{how.name}: signal to the standby's first list, p50", "ms", median(listed))
