"""What is answered to whom over HTTP."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from attrs import evolve, frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from sgpud.config.values import HttpSettings
from sgpud.core.allocation.decisions import Decision, DecisionKind
from sgpud.core.status.history import HistoryView, LastHour
from sgpud.core.status.view import document
from sgpud.serve.http.access import Router, accepted, is_loopback
from sgpud.serve.http.page_data import PageData
from sgpud.serve.http.pages import SHOWN, pages
from sgpud.serve.http.site import StatusSite
from tests.node_view import VIEW

HERE = IPv4Address("TCP", "127.0.0.1", 9449)
HERE6 = IPv6Address("TCP", "::1", 9449)
AWAY = IPv4Address("TCP", "10.1.2.3", 9449)
SOCKET = UNIXAddress("/run/sgpud/status.sock")
DECISIONS = tuple(
    Decision(float(at), DecisionKind.REFUSAL, "example.com/gpu", 1, (), "unknown")
    for at in range(SHOWN + 5)
)
HISTORY = HistoryView(30.0, 120, {"GPU-1": LastHour((None, 2**30), (7, None))})
POLICY = "content-security-policy"
PUBLIC = ("/healthz", "/readyz", "/metrics")
EVERYTHING = (*PUBLIC, "/", "/decisions", "/history", "/status")


@frozen
class Asked:
    """One answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def header(self, name: str) -> str:
        return self.headers[name]


def ask(
    path: str,
    at: object = HERE,
    view: Any = VIEW,
    *,
    host: str | None = "127.0.0.1:9449",
    method: bytes = b"GET",
    accept: str = "",
    settings: HttpSettings | None = None,
) -> Asked:
    """Over a connection to `at`, by HTTP/1.0, which does not insist on a name of the host."""
    data = PageData(lambda: view, lambda: DECISIONS, lambda: HISTORY)
    shown = Router(pages(data), lambda: settings or HttpSettings())
    channel: Any = StatusSite(shown.answer, Clock()).buildProtocol(None)
    transport = StringTransport(hostAddress=at)
    channel.makeConnection(transport)
    lines = [method + b" " + path.encode() + b" HTTP/1.0"]
    for name, value in (("host", host), ("accept", accept)):
        if value:
            lines.append(f"{name}: {value}".encode())
    channel.dataReceived(b"\r\n".join([*lines, b"", b""]))
    head, _, body = transport.value().partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = [line.split(": ", 1) for line in rest]
    return Asked(int(first.split()[1]), body, {name.lower(): value for name, value in headers})


class PagesTest(SynchronousTestCase):
    def statuses(self, paths: Iterable[str], *args: Any, **named: Any) -> Sequence[int]:
        return [ask(path, *args, **named).status for path in paths]

    def test_metrics_come_as_text(self) -> None:
        asked = ask("/metrics")
        assert asked.header("content-type").startswith("text/plain; version=")
        assert b"\nsgpud_serving 1.0\n" in asked.body

    def test_metrics_come_as_openmetrics_if_accepted(self) -> None:
        asked = ask("/metrics", accept="application/openmetrics-text")
        assert asked.header("content-type").startswith("application/openmetrics-text; version=")
        assert asked.body.endswith(b"# EOF\n")

    def test_the_page_allows_only_its_own_script_and_style(self) -> None:
        asked = ask("/")
        assert asked.header("content-type") == "text/html; charset=utf-8"
        assert len(asked.body) < 60_000
        policy = dict(part.strip().split(" ", 1) for part in asked.header(POLICY).split(";"))
        assert policy["default-src"] == "'none'"
        for kind, name in (("style-src", b"style"), ("script-src", b"script")):
            (text,) = re.findall(rb"<%s>(.*?)</%s>" % (name, name), asked.body, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
            assert policy[kind] == f"'sha256-{digest}'"

    def test_the_page_refers_to_no_other_host(self) -> None:
        body = ask("/").body
        assert not re.findall(rb"https?:|//[a-z0-9.]+/|@import|innerHTML|insertAdjacent", body)

    def test_decisions_are_listed_newest_first(self) -> None:
        asked = ask("/decisions")
        assert asked.header("content-type") == "application/json"
        found = json.loads(asked.body)["decisions"]
        assert [one["at"] for one in found] == list(range(SHOWN + 4, 4, -1))
        assert found[0]["kind"] == "refusal"

    def test_the_history_has_nulls_where_nothing_was_measured(self) -> None:
        asked = ask("/history")
        assert asked.header("content-type") == "application/json"
        assert json.loads(asked.body) == {
            "every": 30.0,
            "steps": 120,
            "gpus": {"GPU-1": {"used": [None, 2**30], "utilisation": [7, None]}},
        }

    def test_the_status_is_the_document(self) -> None:
        asked = ask("/status")
        assert asked.header("content-type") == "application/json"
        assert json.loads(asked.body) == json.loads(json.dumps(document(VIEW)))

    def test_a_head_request_gets_the_headers_alone(self) -> None:
        asked = ask("/status", method=b"HEAD")
        assert (asked.status, asked.body) == (200, b"")
        assert asked.header("content-type") == "application/json"
        assert int(asked.header("content-length")) == len(ask("/status").body)

    def test_an_unknown_page_is_not_found(self) -> None:
        for path in ("/metrics/", "/secrets", "/status/../x"):
            asked = ask(path)
            assert asked.status == 404
            assert b"/, /decisions, /healthz, /history, /metrics, /readyz, /status" in asked.body

    def test_only_get_and_head_are_allowed(self) -> None:
        for method in (b"POST", b"PUT", b"DELETE", b"NONSENSE"):
            asked = ask("/metrics", method=method)
            assert asked.status == 405
            assert asked.header("allow") == "GET, HEAD"

    def test_answers_are_not_cached_and_load_nothing(self) -> None:
        asked = ask("/status")
        assert asked.header("cache-control") == "no-store"
        assert asked.header("content-security-policy").startswith("default-src 'none'")
        assert asked.header("server") == "sgpud"

    def test_the_node_itself_may_read_everything(self) -> None:
        for at in (HERE, HERE6, SOCKET):
            assert self.statuses(EVERYTHING, at) == [200] * len(EVERYTHING)

    def test_other_machines_may_not_read_the_status(self) -> None:
        assert self.statuses(PUBLIC, AWAY) == [200] * 3
        asked = ask("/status", AWAY)
        assert asked.status == 403
        assert b"expose_status" in asked.body
        assert b"GPU" not in asked.body

    def test_other_machines_may_read_the_status_if_configured(self) -> None:
        exposed = HttpSettings(expose_status=True)
        assert self.statuses(EVERYTHING, AWAY, settings=exposed) == [200] * len(EVERYTHING)

    def test_a_foreign_host_name_is_refused_for_every_private_page(self) -> None:
        private = [421] * (len(EVERYTHING) - len(PUBLIC))
        for host in ("evil.example", "evil.example:9449", "127.0.0.1.evil.example", "", None):
            for client in (HERE, AWAY):
                expected = [200] * len(PUBLIC) + private
                assert self.statuses(EVERYTHING, client, host=host) == expected

    def test_a_configured_host_name_is_accepted(self) -> None:
        named = HttpSettings(hosts=("node-1.example",))
        assert self.statuses(EVERYTHING, host="Node-1.example:9449", settings=named) == [200] * len(
            EVERYTHING
        )
        assert ask("/status", host="node-2.example", settings=named).status == 421

    def test_a_unix_socket_needs_no_host_name(self) -> None:
        assert ask("/status", SOCKET, host="anything").status == 200

    def test_a_failed_part_fails_only_healthz(self) -> None:
        ill = evolve(VIEW, dead=("holder tracker",))
        asked = ask("/healthz", view=ill)
        assert (asked.status, asked.body) == (503, b"dead: holder tracker\n")
        assert ask("/readyz", view=ill).status == 200

    def test_readyz_says_why_not(self) -> None:
        waits = evolve(VIEW, unready=("waiting for GPUs", "no kubelet"))
        asked = ask("/readyz", view=waits)
        assert (asked.status, asked.body) == (503, b"waiting for GPUs\nno kubelet\n")
        assert ask("/readyz").body == b"ready: serving\n"
        assert ask("/healthz", view=waits).status == 200

    def test_a_view_that_raises_is_an_error_without_details(self) -> None:
        asked = ask("/status", view=None)
        assert (asked.status, asked.body.splitlines()[0]) == (
            500,
            b"Internal error: see the log of sgpud.",
        )
        assert len(self.flushLoggedErrors()) == 1


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("127.0.0.1", True),
        ("10.0.0.7:9449", True),
        ("[::1]:9449", True),
        ("[fe80::1]", True),
        ("LOCALHOST.:80", True),
        ("localhost", True),
        ("node", True),
        ("::1", False),
        ("[::1", False),
        ("[127.0.0.1]", False),
        ("localhost:", False),
        ("localhost:port", False),
        ("localhost:80:80", False),
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1@evil.example", False),
        (" ", False),
        ("é.example", False),
    ],
)
def test_accepted_hosts(host: str, *, fits: bool) -> None:
    assert accepted(host, ("Node",)) is fits


def test_loopback_addresses() -> None:
    for address in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"):
        assert is_loopback(address)
    for address in ("10.0.0.1", "0.0.0.0", "::", "fe80::1%eth0", "::ffff:10.0.0.1", "name", ""):
        assert not is_loopback(address)
