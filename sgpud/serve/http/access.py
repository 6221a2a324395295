"""Answers HTTP requests with the pages that there are, on the reactor. They can only be read.

It reads the request's line and two of its headers, and nothing else that a client sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.logger import Logger
from twisted.web.http import FORBIDDEN, INTERNAL_SERVER_ERROR, NOT_ALLOWED, NOT_FOUND, Request

from sgpud.config.values import HttpSettings
from sgpud.serve.http.hosts import accepted, is_loopback
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
        """`settings` is asked for each request: a reload may have changed them."""
        self._pages = pages
        self._settings = settings

    def answer(self, request: Request) -> HttpAnswer:
        """The page with all its headers, or a line that says why there is none."""
        answer = self._answer(request)
        headers = {**HEADERS, **dict(answer.headers), "content-type": answer.content_type}
        return evolve(answer, headers=tuple(headers.items()))

    def _answer(self, request: Request) -> HttpAnswer:
        settings = self._settings()
        page = self._pages.get(request.path)
        local = _is_local(request)
        # What everybody may read needs no protection from a page that a browser on the node shows.
        everybody = page is not None and page.everywhere
        named = everybody or accepted(request.getHeader("host"), settings.hosts)
        if local is not None and not named:
            return _line(
                MISDIRECTED,
                "Name this host by an IP address, as localhost, or as one of [http] hosts.",
            )
        if request.method not in {b"GET", b"HEAD"}:
            refused = _line(NOT_ALLOWED, "This can only be read.")
            return HttpAnswer(TEXT, refused.body, NOT_ALLOWED, (("allow", "GET, HEAD"),))
        if page is None:
            paths = ", ".join(sorted(path.decode() for path in self._pages))
            return _line(NOT_FOUND, f"Not found. Available: {paths}.")
        if local is False and not page.everywhere and not settings.expose_status:
            return _line(
                FORBIDDEN,
                "Only the node itself may read this: it names pods. [http] expose_status = true "
                "shows it to everybody who can reach this address.",
            )
        try:
            return page.make(request.getHeader("accept") or "")
        except Exception:  # noqa: BLE001 - an error in a view must not become a page of Twisted's
            self._log.failure(
                "Answering {path} failed", path=request.path.decode("ascii", "replace")
            )
            return _line(INTERNAL_SERVER_ERROR, "It could not be made: the log of sgpud says why.")


def _is_local(request: Request) -> bool | None:
    """Whether the client is on this node; None: it came over a unix socket, which has a mode."""
    host = request.getHost()  # type: ignore[no-untyped-call]
    if isinstance(host, (IPv4Address, IPv6Address)):
        return is_loopback(host.host)
    return None


def _line(status: int, text: str) -> HttpAnswer:
    return HttpAnswer(TEXT, f"{text}\n".encode(), status)
