"""All that can be read of sgpud: the pages, on the status socket and where `[http] listen` says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred, gatherResults

from sgpud.core.decisions import Decision
from sgpud.core.status import View
from sgpud.operate.client import STATUS
from sgpud.operate.http import HttpServer
from sgpud.operate.pages import pages
from sgpud.operate.site import Clients
from sgpud.operate.unix_socket import Kind, Reactor, UnixSocket
from sgpud.operate.web import Pages, Settings

KIND = Kind(
    "Status socket",
    0o660,
    group="sgpud",
    there="the status can be read now",
    without="`sgpud plan` tells some of it until it is there",
)


class HttpSettings(Settings, Protocol):
    """[http], as it is configured now."""

    @property
    def listen(self) -> str:
        """A Twisted endpoint string, or empty; only what it is at the start counts."""


class Reading:
    """Serves what is to be read, from `start` to `stop`. A standby does where nobody else does."""

    def __init__(
        self,
        reactor: Reactor,
        run: Path,
        settings: Callable[[], HttpSettings],
        look: Callable[[], View],
        decisions: Callable[[], Sequence[Decision]],
    ) -> None:
        """`run`: the folder of the status socket. `look` makes the view, for each answer."""
        self._clients = Clients(Pages(pages(look, decisions), settings).answer, reactor)
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
