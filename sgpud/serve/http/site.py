"""The connections of HTTP clients, bounded in number, size and time.

A client that sends slowly, nothing or garbage occupies one connection: beyond CONNECTIONS, the one
idle longest is closed. Request bodies are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

# Not twisted.web.server: its templates and perspective broker are a tenth of the daemon's start.
from twisted.web.http import HTTPChannel, HTTPFactory, Request, datetimeToString

from sgpud.serve.http.access import MISDIRECTED
from sgpud.serve.http.pages import HttpAnswer

CONNECTIONS = 64
"""Connections at the same time, on the port and the status socket together."""
IDLE_FOR = 60.0
"""Seconds without data after which a connection is closed."""
HEADER_BYTES = 8192
"""Bytes of the request line and headers together."""
_PHRASES = {MISDIRECTED: b"Misdirected Request"}
"""For status codes that Twisted does not know."""
_BODY = (
    b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n"
    b"server: sgpud\r\n\r\n"
)


class _Request(Request):
    """One request, answered at once."""

    channel: _Channel

    def process(self) -> None:
        answer = self.channel.clients.answer(self)
        self.setResponseCode(answer.status, _PHRASES.get(answer.status))
        length = str(len(answer.body))
        headers = {"date": datetimeToString(), "content-length": length, **dict(answer.headers)}  # type: ignore[no-untyped-call]
        for name, value in headers.items():
            self.setHeader(name, value)  # type: ignore[no-untyped-call]
        self.write(answer.body)  # type: ignore[no-untyped-call]
        self.finish()  # type: ignore[no-untyped-call]


class _Channel(HTTPChannel):
    """One connection."""

    requestFactory = _Request
    totalHeadersSize = HEADER_BYTES
    clients: StatusSite
    transport: Any

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.clients.opened(self)

    def dataReceived(self, data: bytes) -> None:
        self.clients.active(self)
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """Close it at once, without sending the rest."""
        self.transport.abortConnection()

    def allHeadersReceived(self) -> None:
        # None: a body of unknown length follows.
        if self.length != 0:
            self.transport.write(_BODY)
            self.loseConnection()  # type: ignore[no-untyped-call]
        else:
            super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.clients.closed(self)
        super().connectionLost(reason)  # type: ignore[no-untyped-call]


class StatusSite(HTTPFactory):
    """All HTTP clients. It writes no access log: everything is read-only."""

    noisy = False
    protocol = _Channel  # type: ignore[assignment]

    def __init__(self, answer: Callable[[Request], HttpAnswer], reactor: Any) -> None:
        """`answer` is called for each request and must not block; `reactor` times connections."""
        super().__init__(timeout=IDLE_FOR, reactor=reactor)
        self.answer = answer
        self._open: dict[_Channel, None] = {}

    def startFactory(self) -> None:
        """Nothing: Twisted's would wake the process every second to update a log timestamp."""

    def stopFactory(self) -> None:
        """Nothing."""

    def log(self, request: Request) -> None:
        """Nothing."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """One channel per connection."""
        channel: Any = super().buildProtocol(addr)
        channel.clients = self
        return channel

    def opened(self, channel: _Channel) -> None:
        """A connection was opened; beyond the limit, the one idle longest is closed."""
        self._open[channel] = None
        if len(self._open) > CONNECTIONS:
            oldest = next(iter(self._open))
            self.closed(oldest)
            oldest.abort()

    def active(self, channel: _Channel) -> None:
        """Data arrived on a connection."""
        if channel in self._open:
            del self._open[channel]
            self._open[channel] = None

    def closed(self, channel: _Channel) -> None:
        """A connection was closed."""
        self._open.pop(channel, None)

    def close_all(self) -> None:
        """Close every connection."""
        for channel in tuple(self._open):
            channel.abort()
