"""The HTTP server, if one is configured."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock, Timer

TRY_EVERY = 5.0
"""Seconds between attempts to listen while the port is in use or the address does not exist."""


ALLOW_HTTP = "/usr/libexec/sgpud/allow-http"
"""The command of the Debian package that gives the service the node's network."""


NO_HTTP = "cannot serve HTTP"
"""How `problem` begins."""


class _SharedPort(tcp.Port):
    """A listening port that the next sgpud can bind too, before this one has stopped."""

    def createInternetSocket(self) -> socket.socket:
        made: socket.socket = super().createInternetSocket()  # type: ignore[no-untyped-call]
        _share(made)
        return made


class _SharedListening:
    """The reactor, for an endpoint whose port is shared from the start."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> tcp.Port:
        made = _SharedPort(port, factory, backlog, interface, self._reactor)
        made.startListening()
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)


class HttpServer:
    """Serves a site at an endpoint; with an empty one it does nothing.

    During a handover both listen (SO_REUSEPORT), so that no request is refused. Until it takes
    over, a standby listens only if the port is free: its answers are about itself.
    """

    _log = Logger()

    def __init__(self, reactor: Clock, listen: str, site: IProtocolFactory) -> None:
        """`listen` is a Twisted endpoint string."""
        self._reactor = reactor
        self._listen = listen
        self._site = site
        self._port: Any = None
        self._timer = Timer(reactor)
        self._problem = ""
        self._shared = False

    @property
    def problem(self) -> str:
        """Why it cannot listen, or empty."""
        return self._problem and f"{NO_HTTP} at {self._listen}: {self._problem}"

    @property
    def listening(self) -> bool:
        """Whether requests are answered."""
        return self._port is not None

    def take_over(self) -> None:
        """Listen beside the previous process."""
        self._shared = True
        if self._timer.active:
            self._timer.cancel()
            self.start()

    def start(self) -> None:
        """Listen, now or as soon as possible; the log says what prevents it."""
        if not self._listen:
            return
        from twisted.internet.endpoints import serverFromString  # noqa: PLC0415 - here only

        reactor = _SharedListening(self._reactor) if self._shared else self._reactor
        endpoint = serverFromString(reactor, self._listen)  # type: ignore[no-untyped-call]
        endpoint.listen(self._site).addCallbacks(self._listens, self._fails)

    def stop(self) -> Deferred[None]:
        """Stop serving."""
        self._listen = ""
        self._timer.cancel()
        port, self._port = self._port, None
        if port is None:
            return succeed(None)
        if isinstance(port, tcp.Port):
            # Accept those that have connected: the kernel would reset their connections.
            port.doRead()  # type: ignore[no-untyped-call]
        return maybeDeferred(port.stopListening)

    def _listens(self, port: Any) -> None:
        self._port = port
        if isinstance(port, tcp.Port):
            _share(port.socket)
        self._problem = ""
        self._log.info("Serving HTTP at {listen}", listen=self._listen)

    def _fails(self, failure: Failure) -> None:
        problem = _reason(failure)
        if problem != self._problem:
            self._problem = problem
            self._log.error(
                "Cannot serve HTTP at {listen}: {problem}. Retrying every {seconds:.0f} s",
                listen=self._listen,
                problem=problem,
                seconds=TRY_EVERY,
            )
        self._timer.set(TRY_EVERY, self.start)


def _reason(failure: Failure) -> str:
    """Why it cannot listen, and what to do, if known."""
    cause = getattr(failure.value, "socketError", failure.value)
    if isinstance(cause, OSError) and cause.errno == errno.EAFNOSUPPORT:
        return f"{cause.strerror}. The unit of the package has no network: run {ALLOW_HTTP}"
    return str(failure.getErrorMessage())


def _share(made: socket.socket) -> None:
    """Let another process of the same user listen at the same port."""
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
