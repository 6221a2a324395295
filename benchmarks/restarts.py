"""How long the node is without shares when the kubelet, or the daemon, is replaced."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.appearing import Appearing
from benchmarks.node import RESOURCE, WITHIN, Node, Process
from benchmarks.report import NotMeasuredError, Number, Target, median

APART = 0.15
"""Seconds a kubelet is away. A real one takes longer; the stream that it had ends meanwhile."""

LOCK_WITHIN = 60.0
"""Milliseconds from SIGTERM until the next process has the lock, at worst."""


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


def stopping(*, quick: bool) -> Iterator[Number]:
    """From a signal to the lock's release: SIGTERM and SIGKILL in turn, quiet and beside work."""
    for busy in (0, os.cpu_count() or 1):
        took: dict[signal.Signals, list[float]] = {signal.SIGKILL: [], signal.SIGTERM: []}
        with ExitStack() as stack, Node(16, 1000) as node:
            for _ in range(busy):
                spin = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                stack.callback(spin.wait)
                stack.callback(spin.kill)
            for _ in range(4 if quick else 20):
                for how, samples in took.items():
                    samples.append(_unlocked(node, node.sgpud(), how))
        beside = ", beside work" if busy else ""
        killed, ended = took[signal.SIGKILL], took[signal.SIGTERM]
        yield Number(f"SIGKILL to the lock's release{beside}, p50", "ms", median(killed))
        yield Number(f"SIGTERM to the lock's release{beside}, p50", "ms", median(ended))
        target = Target(LOCK_WITHIN, f"{LOCK_WITHIN:g} ms")
        yield Number(
            f"SIGTERM to the lock's release{beside}, worst", "ms", max(ended), target=target
        )


def _unlocked(node: Node, daemon: Process, how: signal.Signals) -> float:
    """Milliseconds until another process that waits for the daemon's lock has it."""
    node.registered(RESOURCE, daemon.began)
    descriptor = os.open(node.kubelet.plugin_dir, os.O_RDONLY | os.O_DIRECTORY)
    waits, got = threading.Event(), []

    def wait() -> None:
        waits.set()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        got.append(time.monotonic())

    thread = threading.Thread(target=wait, name="lock", daemon=True)
    thread.start()
    waits.wait(WITHIN)
    threading.Event().wait(APART)
    began = time.monotonic()
    daemon.send(how)
    thread.join(WITHIN)
    os.close(descriptor)
    daemon.stop(how)
    if not got:
        raise NotMeasuredError(f"the lock was not released after {how.name}")
    return (got[0] - began) * 1000
