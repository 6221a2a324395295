"""The control socket: where `sgpud reload` and its like reach the daemon that serves the node.

The socket belongs to the sgpud that serves the plugin directory. At a handover the new one waits
until the old one has taken its socket away, so that neither removes the other's.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock
from sgpud.operate.requests import Conversation, Verb

MODE = 0o600
CONNECTIONS = 16
"""Connections at the same time; one more is refused."""
LOOK_EVERY = 5.0
"""Seconds between looks at the socket file, to make it anew where it was removed."""
HANDOVER = 0.1
"""Seconds between looks while another sgpud still answers on the socket."""
GRACE = 5.0
"""Seconds that another may answer before the log says so."""


class Reactor(Clock, Protocol):
    """The parts of the reactor that a listening socket needs."""

    def addReader(self, reader: Any) -> object:
        """Tell `reader` when there is something to read."""

    def removeReader(self, reader: Any) -> object:
        """No more."""


class _Port(unix.Port):
    """A listening port that leaves its file alone: unlinking by path would hit a successor's."""

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)  # type: ignore[no-untyped-call]


class Control(ServerFactory):
    """Serves verbs on a UNIX socket, to root only."""

    _log = Logger()
    noisy = False

    def __init__(self, reactor: Reactor, path: Path, verbs: Mapping[str, Verb]) -> None:
        """Nothing happens before `start`."""
        self.path = path
        self._reactor = reactor
        self._verbs = verbs
        self._conversations: set[Conversation] = set()
        self._port: _Port | None = None
        self._bound: tuple[int, ...] | None = None
        self._timer: IDelayedCall | None = None
        self._problem = ""
        self._waited = 0.0

    @property
    def listening(self) -> bool:
        """Whether verbs can be asked."""
        return self._port is not None

    def start(self) -> None:
        """Serve, at once or as soon as it can be done; the log says why if not at once."""
        if self._timer is None:
            self._look()

    def stop(self) -> Deferred[None]:
        """Take the socket away, hang up on everybody; fires when all is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # First the file, then the port: who finds nobody answering may remove the file.
        if self._bound is not None and _identity(self.path) == self._bound:
            self.path.unlink(missing_ok=True)
        ends = [self._close()]
        for conversation in self._conversations:
            ends.append(conversation.closed)
            conversation.abort()
        return gatherResults(ends).addCallback(lambda _: None)

    def buildProtocol(self, addr: IAddress | None) -> Conversation:  # noqa: ARG002
        """One conversation per connection."""
        busy = len(self._conversations) >= CONNECTIONS
        conversation = Conversation(self._reactor, self._verbs, busy=busy)
        self._conversations.add(conversation)
        conversation.closed.addCallback(lambda _: self._conversations.discard(conversation))
        return conversation

    def _look(self) -> None:
        """Listen, if that is not so: the first time, after a hindrance, after a removal."""
        self._timer = None
        again = LOOK_EVERY
        try:
            if self._bound is not None and _identity(self.path) != self._bound:
                self._log.warn("{path} was taken away: making it anew", path=self.path)
                self._close()
            if self._port is None:
                again = self._listen()
        except (OSError, CannotListenError) as problem:
            reason = problem.socketError if isinstance(problem, CannotListenError) else problem
            self._say(f"{reason}")
        self._timer = self._reactor.callLater(again, self._look)

    def _listen(self) -> float:
        if not self.path.parent.exists():
            self.path.parent.mkdir(parents=True)
            self.path.parent.chmod(0o755)
        if _answers(self.path):
            self._waited += HANDOVER
            if self._waited > GRACE:
                self._say("another sgpud answers there, which the verbs then reach")
            return HANDOVER
        self._waited = 0.0
        self.path.unlink(missing_ok=True)
        port = _Port(os.fsencode(self.path), self, mode=MODE, reactor=self._reactor)
        port.startListening()  # type: ignore[no-untyped-call]
        self._port, self._bound = port, _identity(self.path)
        if self._problem:
            self._log.info("Control socket {path}: verbs can be asked now", path=self.path)
            self._problem = ""
        return LOOK_EVERY

    def _close(self) -> Deferred[Any]:
        port, self._port, self._bound = self._port, None, None
        return succeed(None) if port is None else maybeDeferred(port.stopListening)

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._log.error(
                "No control socket {path}: {problem}. Reload with SIGHUP until it is there",
                path=self.path,
                problem=problem,
            )


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return (found.st_dev, found.st_ino, found.st_ctime_ns)


def _answers(path: Path) -> bool:
    """Whether somebody listens on this path. What is no socket raises FileExistsError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(None, "something that is no socket has this name: remove it")
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
