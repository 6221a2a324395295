"""The HTTP server's pages: /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from twisted.web.http import NOT_ALLOWED, NOT_FOUND
from twisted.web.resource import Resource
from twisted.web.server import Request

TEXT = "text/plain; charset=utf-8"


class Pages(Resource):
    """Everything that can be read over HTTP, on the reactor. Nothing can be changed there.

    It is one leaf, because Twisted's own pages for what is not there differ between its versions.
    """

    isLeaf = True

    def __init__(self, registry: CollectorRegistry) -> None:
        """`registry` is collected anew for each request of /metrics."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._registry = registry

    def render(self, request: Request) -> bytes:
        """The page; 404 and 405 with a line that says what there is."""
        if request.path != b"/metrics":
            request.setResponseCode(NOT_FOUND)
            content_type, body = TEXT, b"There is /metrics here.\n"
        elif request.method not in {b"GET", b"HEAD"}:
            request.setResponseCode(NOT_ALLOWED)
            request.setHeader("allow", "GET, HEAD")  # type: ignore[no-untyped-call]
            content_type, body = TEXT, b"This can only be read.\n"
        else:
            encode, content_type = choose_encoder(request.getHeader("accept") or "")
            body = encode(self._registry)
        request.setHeader("content-type", content_type)  # type: ignore[no-untyped-call]
        return b"" if request.method == b"HEAD" else body
