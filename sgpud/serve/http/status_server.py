"""All that can be read of sgpud: the pages, on the status socket and where `[http] listen` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from sgpud.bridge import Reactor
from sgpud.config.values import HttpSettings
from sgpud.core.allocation.decisions import Decision
from sgpud.core.status.view import NodeView
from sgpud.serve.control.client import STATUS
from sgpud.serve.http.access import Router
from sgpud.serve.http.pages import pages
from sgpud.serve.http.server import HttpServer
from sgpud.serve.http.site import StatusSite
from sgpud.serve.unix_socket import SocketKind, UnixSocket

KIND = SocketKind(
    "Status socket",
    0o660,
    group="sgpud",
    there="the status can be read now",
    without="`sgpud plan` tells some of it until it is there",
)


class StatusServer:
    """Serves what is to be read, from `start` to `stop`. A standby does where nobody else does."""

    def __init__(
        self,
        reactor: Reactor,
        run: Path,
        settings: Callable[[], HttpSettings],
        look: Callable[[], NodeView],
        decisions: Callable[[], Sequence[Decision]],
    ) -> None:
        """`run`: the folder of the status socket. `look` makes the view, for each answer."""
        self._clients = StatusSite(Router(pages(look, decisions), settings).answer, reactor)
        self._socket = UnixSocket(reactor, run / STATUS, self._clients, KIND)
        self._http = HttpServer(reactor, settings().listen, self._clients)

    def start(self) -> None:
        """Serve."""
        self._socket.start()
        self._http.start()

    def stop(self) -> Deferred[Any]:
        """Take the socket away, close the port, hang up on everybody."""
        ends = gatherResults([self._socket.stop(), self._http.stop()])
        self._clients.hang_up()
        return ends
