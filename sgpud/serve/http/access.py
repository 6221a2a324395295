"""Answers HTTP requests for the read-only pages, on the reactor.

It reads the request line and two headers, and nothing else that a client sends.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address

from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.web.http import FORBIDDEN, INTERNAL_SERVER_ERROR, NOT_ALLOWED, NOT_FOUND, Request

from sgpud.config.values import HttpSettings
from sgpud.serve.http.pages import TEXT, HttpAnswer, Route

MISDIRECTED = 421
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "server": "sgpud",
    "x-content-type-options": "nosniff",
}
"""Headers of every answer."""


class Router:
    """Every page, and who may read it."""

    _log = Logger()

    def __init__(self, pages: Mapping[bytes, Route], settings: Callable[[], HttpSettings]) -> None:
        """`settings` is called for each request: a reload may have changed them."""
        self._pages = pages
        self._settings = settings

    def answer(self, request: Request) -> HttpAnswer:
        """The page with all its headers, or one line with the error."""
        answer = self._answer(request)
        headers = {**HEADERS, **dict(answer.headers), "content-type": answer.content_type}
        return evolve(answer, headers=tuple(headers.items()))

    def _answer(self, request: Request) -> HttpAnswer:
        settings = self._settings()
        page = self._pages.get(request.path)
        local = _is_local(request)
        # Public pages need no protection from a page that a browser on the node shows.
        public = page is not None and page.public
        named = public or accepted(request.getHeader("host"), settings.hosts)
        if local is not None and not named:
            return _line(
                MISDIRECTED,
                "Use an IP address, localhost or one of [http] hosts as the host name.",
            )
        if request.method not in {b"GET", b"HEAD"}:
            refused = _line(NOT_ALLOWED, "Method not allowed: everything here is read-only.")
            return HttpAnswer(TEXT, refused.body, NOT_ALLOWED, (("allow", "GET, HEAD"),))
        if page is None:
            paths = ", ".join(sorted(path.decode() for path in self._pages))
            return _line(NOT_FOUND, f"Not found. Available: {paths}.")
        if local is False and not page.public and not settings.expose_status:
            return _line(
                FORBIDDEN,
                "Forbidden except from the node itself: this page names pods. [http] expose_status"
                " = true opens it to every host that can reach this address.",
            )
        try:
            return page.make(request.getHeader("accept") or "")
        except Exception:  # noqa: BLE001 - an error in a view must not become a page of Twisted's
            self._log.failure("Cannot answer {path}", path=request.path.decode("ascii", "replace"))
            return _line(INTERNAL_SERVER_ERROR, "Internal error: see the log of sgpud.")


def _is_local(request: Request) -> bool | None:
    """Whether the client is on this node; None: a unix socket, which file permissions protect."""
    host = request.getHost()  # type: ignore[no-untyped-call]
    if isinstance(host, (IPv4Address, IPv6Address)):
        return is_loopback(host.host)
    return None


def _line(status: int, text: str) -> HttpAnswer:
    return HttpAnswer(TEXT, f"{text}\n".encode(), status)


LOCAL = "localhost"


def accepted(header: str | None, names: Collection[str]) -> bool:
    """Whether a Host header is an IP address, `localhost` or one of these names, with any port.

    Protects the node's pages from web pages (DNS rebinding): a page in a browser on the node can
    request any address, also a loopback one, under a name of its own that it resolves to this
    address. The browser then sends that name.
    """
    host = _name(header or "")
    return bool(host) and (_is_address(host) or host in {LOCAL, *(name.lower() for name in names)})


def _name(header: str) -> str:
    """The host without its port, in lower case; empty for anything but a host."""
    text = header.strip().lower()
    if text.startswith("["):
        address, closed, port = text[1:].partition("]")
        return address if closed and _is_port(port) and ":" in address else ""
    name, colon, port = text.partition(":")
    return name.removesuffix(".") if _is_port(colon + port) else ""


def _is_port(text: str) -> bool:
    return not text or (text[0] == ":" and text[1:].isascii() and text[1:].isdigit())


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback
