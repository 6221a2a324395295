"""The control socket, on which `sgpud reload` and others reach the sgpud that serves the node."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory

from sgpud.bridge import Reactor
from sgpud.serve.control.protocol import ControlProtocol, Verb
from sgpud.serve.unix_socket import SocketKind, UnixSocket

CONNECTIONS = 16
"""Connections at the same time; one more is refused."""
KIND = SocketKind(
    "Control socket",
    0o660,
    group="sgpud",
    recovered="listening",
    hint="Until then reload with SIGHUP",
    occupied="another sgpud listens there and answers the commands",
)


class ControlServer(ServerFactory):
    """Serves verbs on a UNIX socket, to root; what only reads, to the group sgpud too."""

    noisy = False

    def __init__(self, reactor: Reactor, path: Path, verbs: Mapping[str, Verb]) -> None:
        """Nothing happens before `start`."""
        self.path = path
        self._reactor = reactor
        self._verbs = verbs
        self._connections: set[ControlProtocol] = set()
        self._socket = UnixSocket(reactor, path, self, KIND)

    @property
    def listening(self) -> bool:
        """Whether it listens."""
        return self._socket.listening

    def start(self) -> None:
        """Serve, now or as soon as possible; the log says what prevents it."""
        self._socket.start()

    def stop(self) -> Deferred[None]:
        """Remove the socket and close all connections; fires when all are closed."""
        ends = [self._socket.stop()]
        for connection in self._connections:
            ends.append(connection.closed)
            connection.abort()
        return gatherResults(ends).addCallback(lambda _: None)

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:  # noqa: ARG002
        """One protocol instance per connection."""
        busy = len(self._connections) >= CONNECTIONS
        connection = ControlProtocol(self._reactor, self._verbs, busy=busy)
        self._connections.add(connection)
        connection.closed.addCallback(lambda _: self._connections.discard(connection))
        return connection
