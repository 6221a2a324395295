"""Serves the pages on the status socket and at `[http] listen`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater

from sgpud.bridge import Reactor
from sgpud.config.values import HttpSettings
from sgpud.serve.control.client import STATUS
from sgpud.serve.http.page_data import PageData
from sgpud.serve.http.server import HttpServer
from sgpud.serve.unix_socket import SocketKind, UnixSocket

if TYPE_CHECKING:
    from sgpud.serve.http.site import StatusSite

KIND = SocketKind(
    "Status socket",
    0o660,
    group="sgpud",
    recovered="listening",
    hint="Until then use `sgpud plan`",
)

HANDOVER = 0.3
"""Seconds that the port stays open for the process that has just acquired the lock."""
DRAIN = 0.05
"""Seconds from closing the port to closing its connections."""


class _Clients(ServerFactory):
    """Everybody who asks. The site is built for the first one: twisted.web waits for that."""

    noisy = False

    def __init__(self, build: Callable[[], StatusSite]) -> None:
        self._build = build
        self._site: StatusSite | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self._site is None:
            self._site = self._build()
        return self._site.buildProtocol(addr)

    def close_all(self) -> None:
        """End every connection."""
        if self._site is not None:
            self._site.close_all()


class StatusServer:
    """Serves the pages from `start` to `stop`; as a standby, only if the port is free."""

    def __init__(
        self,
        reactor: Reactor,
        run: Path,
        settings: Callable[[], HttpSettings],
        data: PageData,
    ) -> None:
        """`run`: the directory of the status socket."""
        self._reactor = reactor

        def build() -> StatusSite:
            from sgpud.serve.http.access import Router  # noqa: PLC0415 - no start needs them
            from sgpud.serve.http.pages import pages  # noqa: PLC0415
            from sgpud.serve.http.site import StatusSite  # noqa: PLC0415

            return StatusSite(Router(pages(data), settings).answer, reactor)

        self._clients = _Clients(build)
        self._socket = UnixSocket(reactor, run / STATUS, self._clients, KIND)
        self._http = HttpServer(reactor, settings().listen, self._clients)

    @property
    def problem(self) -> str:
        """Why the port cannot be served, or empty."""
        return self._http.problem

    def start(self) -> None:
        """Serve."""
        self._socket.start()
        self._http.start()

    def take_over(self) -> None:
        """Serve the port beside the previous process."""
        self._http.take_over()

    def stop(self, *, followed: bool) -> Deferred[Any]:
        """Remove the socket, and close the port and all connections.

        `followed`: the next process is about to listen at the port, which stays open until then.
        """
        closed = self._socket.stop()
        if not self._http.listening:
            self._clients.close_all()
            return gatherResults([closed, self._http.stop()])
        clock = cast("IReactorTime", self._reactor)
        ended: Deferred[Any] = deferLater(clock, HANDOVER if followed else 0, self._http.stop)
        # Those that connected last have their answers by then.
        ended.addCallback(lambda _: deferLater(clock, DRAIN, self._clients.close_all))
        return gatherResults([closed, ended])
