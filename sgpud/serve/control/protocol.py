"""One request on the control socket: a line of JSON in, a line of JSON out."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from sgpud.bridge import Clock, Timer
from sgpud.core.errors import SgpudError
from sgpud.serve.control.client import REQUEST_LIMIT

CLIENT_TIMEOUT = 5.0
"""Seconds that a client has to send its request, and again to read the answer."""

READING = frozenset({"status", "explain", "plan"})
"""The verbs that change nothing."""
REPEATED = frozenset({"switch"})
"""The verbs that a command uses again and again; they log what changes themselves."""

Verb = Callable[[Mapping[str, object]], object]
"""Handles one verb, given its arguments. Its result is a dictionary of plain values, or a Deferred
of one. An SgpudError is answered as a refusal; any other exception is logged."""


class RequestError(SgpudError):
    """A line that is not a request; the text says what a request looks like."""


@frozen
class Peer:
    """The other end of a connection, according to the kernel."""

    pid: int
    """0: in a PID namespace that is not visible from here."""
    uid: int

    def may(self, verb: str) -> bool:
        """Whether it may use a verb: root and the user that runs this sgpud any, others READING.

        Others are members of the socket's group: nobody else can open it.
        """
        return verb in READING or self.uid in {0, os.geteuid()}


@frozen
class ControlRequest:
    """A verb and its arguments."""

    verb: str
    arguments: Mapping[str, object]


def parse(line: bytes) -> ControlRequest:
    """The request that a line of JSON states; RequestError for every other line."""
    if len(line) > REQUEST_LIMIT:
        raise RequestError(f"a request has at most {REQUEST_LIMIT} bytes")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise RequestError(f"a request is one line of JSON: {problem}") from None
    if not isinstance(request, dict) or not {"verb"} <= set(request) <= {"verb", "arguments"}:
        raise RequestError('a request is a JSON object with "verb" and, if need be, "arguments"')
    verb, arguments = request["verb"], request.get("arguments", {})
    if not isinstance(verb, str):
        raise RequestError('"verb" is a string')
    if not isinstance(arguments, dict):
        raise RequestError('"arguments" is a JSON object')
    return ControlRequest(verb, arguments)


@implementer(IHalfCloseableProtocol)
class ControlProtocol(Protocol):
    """One connection: reads one request, answers it, logs it, and closes."""

    _log = Logger()

    def __init__(self, clock: Clock, verbs: Mapping[str, Verb], *, busy: bool) -> None:
        """`busy`: refuse every request, as there are too many connections."""
        self.closed: Deferred[None] = Deferred()
        """Fires when the connection is closed."""
        self._clock = clock
        self._verbs = verbs
        self._busy = busy
        self._connection: Any = None
        """The transport, which has more methods than its interface in Twisted."""
        self._peer = Peer(0, 0)
        self._received = b""
        self._verb: str | None = None
        self._timer = Timer(clock)

    def connectionMade(self) -> None:
        """Ask the kernel for the peer, and wait for the request."""
        self._connection = self.transport
        self._peer = _peer(self._connection.getHandle())
        self._wait(self._time_out)
        if self._busy:
            self._refuse("too many connections: try again")

    def dataReceived(self, data: bytes) -> None:
        """Collect the line; anything after it is ignored."""
        if self._verb is not None:
            return
        self._received += data
        line, end, _ = self._received.partition(b"\n")
        if end or len(line) > REQUEST_LIMIT:
            self._request(line)

    def readConnectionLost(self) -> None:
        """The client sends nothing more: what was received is the line."""
        if self._verb is None and self._received:
            self._request(self._received)
        elif self._verb is None:
            self._connection.loseConnection()

    def writeConnectionLost(self) -> None:
        """Never called on our behalf; the end of the connection follows."""

    def connectionLost(self, reason: Failure | None = None) -> None:  # noqa: ARG002
        """Closed. A verb that is running continues."""
        self._timer.cancel()
        self.closed.callback(None)

    def abort(self) -> None:
        """Close the connection now."""
        self._connection.abortConnection()

    def _request(self, line: bytes) -> None:
        try:
            request = parse(line)
        except RequestError as problem:
            self._refuse(str(problem))
            return
        if not self._peer.may(request.verb):
            self._refuse("permission denied: run this command as root", request.verb)
            return
        verb = self._verbs.get(request.verb)
        if verb is None:
            self._refuse(f"no such verb; available: {', '.join(sorted(self._verbs))}", request.verb)
            return
        self._verb = request.verb
        self._timer.cancel()
        answer: Deferred[Any] = maybeDeferred(verb, request.arguments)
        answer.addCallback(lambda result: _line({"ok": True, "answer": result}))
        answer.addCallbacks(self._done, self._failed)

    def _done(self, line: bytes) -> None:
        level = LogLevel.debug if self._verb in REPEATED else LogLevel.info
        self._log_outcome(level, "done")
        self._answer(line)

    def _failed(self, failure: Failure) -> None:
        if isinstance(failure.value, SgpudError):
            self._refuse(str(failure.value), self._verb)
            return
        self._log.failure("Control request {verb} failed", failure, verb=self._verb)
        self._refuse("internal error: see the log of sgpud", self._verb)

    def _refuse(self, error: str, verb: str | None = None) -> None:
        self._verb = verb or "a request"
        self._log_outcome(LogLevel.warn, f"refused: {error}")
        self._answer(_line({"ok": False, "error": error}))

    def _answer(self, line: bytes) -> None:
        if self.closed.called:
            return
        self._wait(self.abort)
        self._connection.write(line)
        self._connection.loseConnection()

    def _log_outcome(self, level: Any, outcome: str) -> None:
        self._log.emit(
            level,
            "{verb}, requested by uid {uid} (pid {pid}): {outcome}",
            verb=self._verb,
            uid=self._peer.uid,
            pid=self._peer.pid,
            outcome=outcome,
        )

    def _time_out(self) -> None:
        self._refuse(f"no request within {CLIENT_TIMEOUT:g} s")

    def _wait(self, expired: Callable[[], None]) -> None:
        self._timer.set(CLIENT_TIMEOUT, expired)


def _line(answer: Mapping[str, object]) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _peer(connection: socket.socket) -> Peer:
    format_ = "3i"
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize(format_))
    pid, uid, _ = struct.unpack(format_, data)
    return Peer(pid, uid)
