"""The HTTP server's port."""

from __future__ import annotations

import errno
import os
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock

from sgpud.serve.http.server import ALLOW_HTTP, HttpServer
from tests.surroundings import listening

LISTEN = "tcp:9449:interface=127.0.0.1"


class Refusing(MemoryReactorClock):
    """A reactor on which nothing listens, for a reason."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def listenTCP(self, port: int, *_: Any, interface: str = "", **__: Any) -> None:
        problem = OSError(self._number, os.strerror(self._number))
        raise CannotListenError(interface, port, problem)


def test_without_a_network_the_error_names_the_command_that_allows_it() -> None:
    server = HttpServer(Refusing(errno.EAFNOSUPPORT), LISTEN, Factory())
    assert server.problem == ""
    with listening() as said:
        server.start()
    (line,) = said.about("Cannot serve HTTP")
    assert f"run {ALLOW_HTTP}" in line
    assert server.problem.startswith(f"cannot serve HTTP at {LISTEN}: Address family")
    assert ALLOW_HTTP in server.problem


def test_a_port_in_use_is_not_blamed_on_the_network() -> None:
    server = HttpServer(Refusing(errno.EADDRINUSE), LISTEN, Factory())
    with listening() as said:
        server.start()
    (line,) = said.about("Cannot serve HTTP")
    assert "Address already in use" in line
    assert ALLOW_HTTP not in line
