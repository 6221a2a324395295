"""The HTTP server, where one is asked for."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock, Timer

TRY_EVERY = 5.0
"""Seconds between tries to listen, while the port is another's or the address is not there."""


class HttpServer:
    """Serves a site at an endpoint; with an empty one it does nothing."""

    _log = Logger()

    def __init__(self, reactor: Clock, listen: str, site: IProtocolFactory) -> None:
        """`listen` is a Twisted endpoint string."""
        self._reactor = reactor
        self._listen = listen
        self._site = site
        self._port: Any = None
        self._timer = Timer(reactor)
        self._problem = ""

    def start(self) -> None:
        """Listen, at once or as soon as it can be done; the log says why if not at once."""
        if not self._listen:
            return
        endpoint = serverFromString(self._reactor, self._listen)  # type: ignore[no-untyped-call]
        endpoint.listen(self._site).addCallbacks(self._listens, self._fails)

    def stop(self) -> Deferred[None]:
        """Serve nothing more."""
        self._listen = ""
        self._timer.cancel()
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening if port is not None else lambda: None)

    def _listens(self, port: Any) -> None:
        self._port = port
        self._problem = ""
        self._log.info("Serving HTTP at {listen}", listen=self._listen)

    def _fails(self, failure: Failure) -> None:
        problem = failure.getErrorMessage()
        if problem != self._problem:
            self._problem = problem
            self._log.error(
                "Cannot serve HTTP at {listen}: {problem}. Trying again every {seconds:.0f} s",
                listen=self._listen,
                problem=problem,
                seconds=TRY_EVERY,
            )
        self._timer.set(TRY_EVERY, self.start)
