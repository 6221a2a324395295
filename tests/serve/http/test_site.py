"""What a client of the HTTP server can cost."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from sgpud.config.values import HttpSettings
from sgpud.core.status.history import HistoryView
from sgpud.serve.http.access import Router
from sgpud.serve.http.page_data import PageData
from sgpud.serve.http.pages import pages
from sgpud.serve.http.site import CONNECTIONS, HEADER_BYTES, IDLE_FOR, StatusSite
from tests.node_view import VIEW

GOOD = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Transport(StringTransport):
    """A connection that knows whether it was cut."""

    cut = False

    def abortConnection(self) -> None:
        self.cut = True
        self.loseConnection()


class ClientsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        data = PageData(lambda: VIEW, tuple, lambda: HistoryView(30.0, 120, {}))
        self.clients = StatusSite(Router(pages(data), HttpSettings).answer, self.clock)

    def connect(self) -> tuple[Any, Transport]:
        channel = self.clients.buildProtocol(None)
        transport = Transport()
        channel.makeConnection(transport)
        return channel, transport

    def test_connections_are_persistent(self) -> None:
        channel, transport = self.connect()
        for number in (1, 2):
            channel.dataReceived(GOOD)
            assert transport.value().count(b"HTTP/1.1 200 OK") == number
        assert not transport.disconnecting

    def test_an_answer_has_a_date_and_a_length(self) -> None:
        channel, transport = self.connect()
        channel.dataReceived(GOOD)
        head, _, body = transport.value().partition(b"\r\n\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        assert int(headers[b"content-length"]) == len(body)
        assert headers[b"date"].endswith(b" gmt")

    def test_beyond_the_limit_the_connection_idle_longest_is_closed(self) -> None:
        silent = [self.connect() for _ in range(CONNECTIONS)]
        silent[0][0].dataReceived(b"GET /healthz")
        self.connect()
        assert [transport.cut for _, transport in silent[:3]] == [False, True, False]
        channel, transport = self.connect()
        assert silent[2][1].cut
        channel.dataReceived(GOOD)
        assert transport.value().startswith(b"HTTP/1.1 200 OK")

    def test_a_closed_connection_does_not_count(self) -> None:
        channels = [self.connect() for _ in range(CONNECTIONS)]
        channels[5][0].connectionLost()
        self.connect()
        assert not any(transport.cut for _, transport in channels)

    def test_an_idle_connection_is_closed(self) -> None:
        _, transport = self.connect()
        self.clock.advance(IDLE_FOR + 1)
        assert transport.disconnecting

    def test_long_headers_are_refused(self) -> None:
        channel, transport = self.connect()
        channel.dataReceived(b"GET / HTTP/1.1\r\nx: " + b"a" * HEADER_BYTES + b"\r\n\r\n")
        assert transport.value().startswith(b"HTTP/1.1 400 ")
        assert transport.disconnecting

    def test_garbage_is_refused(self) -> None:
        for garbage in (b"\x16\x03\x01\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9\r\n : \r\n\r\n"):
            channel, transport = self.connect()
            channel.dataReceived(garbage)
            assert b"200 OK" not in transport.value()
            assert transport.disconnecting

    def test_a_request_body_closes_the_connection(self) -> None:
        for header in (b"content-length: 3", b"transfer-encoding: chunked"):
            channel, transport = self.connect()
            channel.dataReceived(b"GET / HTTP/1.1\r\nhost: a\r\n" + header + b"\r\n\r\nabc")
            assert transport.value().startswith(b"HTTP/1.1 413 ")
            assert transport.value().count(b"HTTP/1.1") == 1
            assert transport.disconnecting

    def test_close_all_closes_every_connection(self) -> None:
        channels = [self.connect() for _ in range(3)]
        self.clients.close_all()
        assert all(transport.cut for _, transport in channels)

    def test_an_idle_site_sets_no_timer(self) -> None:
        self.clients.doStart()
        assert self.clock.getDelayedCalls() == []
        self.clients.doStop()
