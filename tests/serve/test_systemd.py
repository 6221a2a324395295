"""What systemd is told, and when."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from sgpud.serve.systemd import Systemd, watchdog_interval

UNDER = {"NOTIFY_SOCKET": "/run/systemd/notify"}


def told(environ: Mapping[str, str], clock: Clock | None = None) -> tuple[Systemd, list[str]]:
    sent: list[str] = []

    def connect() -> Callable[[str], object]:
        return sent.append

    return Systemd(clock or Clock(), environ, connect), sent


def test_each_state_is_sent() -> None:
    systemd, sent = told(UNDER)
    systemd.ready()
    before = time.monotonic_ns() // 1000
    systemd.reloading()
    systemd.ready()
    systemd.stopping()
    reloading, stamp = sent.pop(1).split("\n")
    assert reloading == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert sent == ["READY=1", "READY=1", "STOPPING=1"]


def test_a_status_is_sent_when_it_changes() -> None:
    systemd, sent = told(UNDER)
    for text in ("a", "a", "b", "a"):
        systemd.status(text)
    assert sent == ["STATUS=a", "STATUS=b", "STATUS=a"]


def test_a_status_cannot_inject_another_assignment() -> None:
    systemd, sent = told(UNDER)
    systemd.status("fine\nMAINPID=1")
    assert sent == [r"STATUS=fine\nMAINPID=1"]


def test_without_systemd_nothing_is_connected() -> None:
    clock = Clock()
    systemd, sent = told({"WATCHDOG_USEC": "1000000"}, clock)
    systemd.start()
    systemd.ready()
    systemd.status("x")
    systemd.stop()
    assert sent == []
    assert clock.getDelayedCalls() == []


def test_the_watchdog_is_fed_twice_per_interval() -> None:
    clock = Clock()
    systemd, sent = told({**UNDER, "WATCHDOG_USEC": "10000000"}, clock)
    systemd.start()
    systemd.start()
    clock.pump([4.9, 0.2])
    assert sent == ["WATCHDOG=1"] * 2
    systemd.stop()
    systemd.stop()
    clock.advance(60)
    assert len(sent) == 2


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_for_the_process_that_systemd_names(
    environ: dict[str, str], interval: float | None
) -> None:
    assert watchdog_interval(environ, 7) == interval


PROGRAM = """
import os, sys
from twisted.internet.task import Clock
from sgpud.serve.systemd import Systemd
systemd = Systemd(Clock(), os.environ)
systemd.status("4 GPUs \\u2265 3")
print("sdnotify" in sys.modules)
"""


def run(environ: dict[str, str]) -> str:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.strip()


@pytest.mark.slow
def test_a_real_socket_gets_the_status_in_utf8(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(10)
        listener.bind(str(path))
        assert run({"NOTIFY_SOCKET": str(path)}) == "True"
        assert listener.recv(1000).decode() == "STATUS=4 GPUs ≥ 3"


@pytest.mark.slow
def test_sdnotify_is_imported_under_systemd_only() -> None:
    assert run({"NOTIFY_SOCKET": ""}) == "False"


def test_the_watchdog_is_not_fed_while_a_part_has_failed() -> None:
    clock, alive = Clock(), [True]
    systemd, sent = told({**UNDER, "WATCHDOG_USEC": "10000000"}, clock)
    systemd.start(lambda: alive[0])
    alive[0] = False
    clock.pump([5.0] * 3)
    assert sent == ["WATCHDOG=1"]
    alive[0] = True
    clock.advance(5.0)
    assert sent == ["WATCHDOG=1"] * 2
