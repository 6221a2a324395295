"""The status socket: whose it is, and what happens to it at a handover."""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.protocol import Protocol, ServerFactory

from sgpud.serve.http.status_server import KIND
from sgpud.serve.unix_socket import GRACE, HANDOVER, LOOK_EVERY, STANDBY_EVERY, UnixSocket
from tests.gpus.nvml.stub import Bench


class Factory(ServerFactory):
    protocol = Protocol
    noisy = False


class Timed:
    """The reactor's sockets, and a time that the test moves."""

    def __init__(self, bench: Bench) -> None:
        self._reactor: Any = bench.reactor
        self.delays: list[float] = []
        self.next: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def callLater(self, delay: float, function: Any, *args: Any) -> Any:
        if not delay:  # a port that closes
            return self._reactor.callLater(delay, function, *args)
        self.delays.append(delay)
        self.next = lambda: function(*args)
        return self

    def cancel(self) -> None:
        self.next = None

    def active(self) -> bool:
        return self.next is not None


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.fixture
def timed(bench: Bench) -> Timed:
    return Timed(bench)


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s") / "status.sock"


def end(bench: Bench, *sockets: UnixSocket) -> None:
    """Stop them, and wait until their ports are closed."""
    closed: list[object] = []
    for each in sockets:
        each.stop().addCallback(closed.append)
    bench.until(lambda: len(closed) == len(sockets))


def test_the_status_socket_is_open_to_root_and_a_group(
    bench: Bench, timed: Timed, path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file to a group needs root")
    group = next(each for each in grp.getgrall() if each.gr_gid != os.getegid())
    made = UnixSocket(timed, path, Factory(), evolve(KIND, group=group.gr_name))
    made.start()
    found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, group.gr_gid)
    end(bench, made)
    assert not path.exists()


def test_without_that_group_the_socket_keeps_the_processs_group(
    bench: Bench, timed: Timed, path: Path
) -> None:
    made = UnixSocket(timed, path, Factory(), evolve(KIND, group="no-such-group"))
    made.start()
    assert path.stat().st_gid == os.getegid()
    end(bench, made)


def test_a_standby_checks_less_often(bench: Bench, timed: Timed, path: Path) -> None:
    first = UnixSocket(timed, path, Factory(), KIND)
    first.start()
    serving = path.stat().st_ino
    second = UnixSocket(timed, path, Factory(), KIND)
    second.start()
    assert timed.delays[-1] == HANDOVER
    for _ in range(round(GRACE / HANDOVER)):
        timed.next()
    assert timed.delays[-1] == STANDBY_EVERY
    assert path.stat().st_ino == serving
    again = timed.next
    end(bench, first)
    again()
    assert second.listening
    assert timed.delays[-1] == LOOK_EVERY
    end(bench, second)
