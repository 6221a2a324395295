"""The control socket: where `sgpud reload` and its like reach the daemon that serves the node.

The socket belongs to the sgpud that serves the plugin directory.
"""

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
    0o600,
    there="verbs can be asked now",
    without="Reload with SIGHUP until it is there",
    occupied="another sgpud answers there, which the verbs then reach",
)


class ControlServer(ServerFactory):
    """Serves verbs on a UNIX socket, to root only."""

    noisy = False

    def __init__(self, reactor: Reactor, path: Path, verbs: Mapping[str, Verb]) -> None:
        """Nothing happens before `start`."""
        self.path = path
        self._reactor = reactor
        self._verbs = verbs
        self._conversations: set[ControlProtocol] = set()
        self._socket = UnixSocket(reactor, path, self, KIND)

    @property
    def listening(self) -> bool:
        """Whether verbs can be asked."""
        return self._socket.listening

    def start(self) -> None:
        """Serve, at once or as soon as it can be done; the log says why if not at once."""
        self._socket.start()

    def stop(self) -> Deferred[None]:
        """Take the socket away, hang up on everybody; fires when all is closed."""
        ends = [self._socket.stop()]
        for conversation in self._conversations:
            ends.append(conversation.closed)
            conversation.abort()
        return gatherResults(ends).addCallback(lambda _: None)

    def buildProtocol(self, addr: IAddress | None) -> ControlProtocol:  # noqa: ARG002
        """One conversation per connection."""
        busy = len(self._conversations) >= CONNECTIONS
        conversation = ControlProtocol(self._reactor, self._verbs, busy=busy)
        self._conversations.add(conversation)
        conversation.closed.addCallback(lambda _: self._conversations.discard(conversation))
        return conversation
