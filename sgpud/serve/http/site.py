"""The HTTP server's side towards its clients: nothing that they send costs more than its lines.

Whoever sends slowly, nothing, or garbage holds a connection and no more than that: of more than
CONNECTIONS the one that has been silent longest is cut. Bodies of requests are not read.
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
"""Connections of one port at the same time."""
SILENT_FOR = 60.0
"""Seconds after which a connection on which nothing comes is closed."""
HEADER_BYTES = 8192
"""Bytes of a request, its line and headers together."""
_PHRASES = {MISDIRECTED: b"Misdirected Request"}
"""For what Twisted has no words."""
_BODY = (
    b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n"
    b"server: sgpud\r\n\r\n"
)


class _Request(Request):
    """One request: it is answered at once."""

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
        self.clients.heard(self)
        super().dataReceived(data)  # type: ignore[no-untyped-call]

    def cut(self) -> None:
        """End it at once, whatever was to be sent."""
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
    """Everybody who asks. It writes no access log: nobody can change anything here."""

    noisy = False
    protocol = _Channel  # type: ignore[assignment]

    def __init__(self, answer: Callable[[Request], HttpAnswer], reactor: Any) -> None:
        """`answer` makes what is sent, at once; `reactor` times the connections."""
        super().__init__(timeout=SILENT_FOR, reactor=reactor)
        self.answer = answer
        self._open: dict[_Channel, None] = {}

    def startFactory(self) -> None:
        """Nothing: Twisted's would wake the process every second for the time in a log."""

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
        """A connection begins; the one that has been silent longest makes room for it."""
        self._open[channel] = None
        if len(self._open) > CONNECTIONS:
            oldest = next(iter(self._open))
            self.closed(oldest)
            oldest.cut()

    def heard(self, channel: _Channel) -> None:
        """Something came on a connection."""
        if channel in self._open:
            del self._open[channel]
            self._open[channel] = None

    def closed(self, channel: _Channel) -> None:
        """A connection has ended."""
        self._open.pop(channel, None)

    def hang_up(self) -> None:
        """End every connection."""
        for channel in tuple(self._open):
            channel.cut()
