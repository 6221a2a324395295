"""The pages: each path, and how to make its answer from the current view.

The one at / is a file that requests nothing but this sgpud's own data. Its policy allows the style
and the script it contains, by their hashes, and nothing else: even a name that was injected into
the markup could load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import asdict, frozen

from sgpud.core.allocation.decisions import Decision
from sgpud.core.explain.explain import recent
from sgpud.core.status.view import NodeView, document
from sgpud.core.text import one_line
from sgpud.serve.http.page_data import PageData

PAGE = (Path(__file__).parent / "page.html").read_bytes()
"""The page, as it is sent."""


def _hash(tag: bytes) -> str:
    """The hash of the content of the only element with this name."""
    found = re.search(rb"<%s>(.*?)</%s>" % (tag, tag), PAGE, re.DOTALL)
    text = found[1] if found else b""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_hash(b'style')}; script-src {_hash(b'script')}; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""The Content-Security-Policy of the page."""


TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
SHOWN = 50
"""Decisions that /decisions shows, at most."""
OK, UNAVAILABLE = 200, 503


@frozen
class HttpAnswer:
    """An answer, without the headers that every answer has."""

    content_type: str
    body: bytes
    status: int = OK
    headers: tuple[tuple[str, str], ...] = ()
    """Further headers; they replace those that every answer has."""


@frozen
class Route:
    """One path."""

    make: Callable[[str], HttpAnswer]
    """Makes the answer, at once and without I/O; it gets the Accept header."""
    public: bool = False
    """Whether other machines may read it too, whatever `[http] expose_status` says."""


def pages(data: PageData) -> Mapping[bytes, Route]:
    """Every page by its path."""
    look, decisions = data.look, data.decisions
    metrics = _Metrics(look)
    return {
        b"/": Route(
            lambda _: HttpAnswer(HTML, PAGE, headers=(("content-security-policy", POLICY),))
        ),
        b"/decisions": Route(lambda _: _json(_recent(decisions(), look()))),
        b"/history": Route(lambda _: _json(asdict(data.history()))),
        b"/healthz": Route(lambda _: _alive(look()), public=True),
        b"/readyz": Route(lambda _: _ready(look()), public=True),
        b"/metrics": Route(metrics.answer, public=True),
        b"/status": Route(lambda _: _json(document(look()))),
    }


class _Metrics:
    """The metrics; prometheus_client costs 2 MiB and is loaded on the first request."""

    def __init__(self, look: Callable[[], NodeView]) -> None:
        self._look = look
        self._encode: Callable[[str], tuple[bytes, str]] | None = None

    def answer(self, accept: str) -> HttpAnswer:
        if self._encode is None:
            from sgpud.serve.metrics.collector import encoder  # noqa: PLC0415 - as above

            self._encode = encoder(self._look)
        body, content_type = self._encode(accept)
        return HttpAnswer(content_type, body)


def _alive(seen: NodeView) -> HttpAnswer:
    """Any answer shows that the reactor runs."""
    return _verdict("alive", [f"dead: {part}" for part in seen.dead])


def _ready(seen: NodeView) -> HttpAnswer:
    return _verdict(f"ready: {seen.serving}", list(seen.unready))


def _verdict(good: str, problems: list[str]) -> HttpAnswer:
    text = "\n".join(map(one_line, problems or [good])) + "\n"
    return HttpAnswer(TEXT, text.encode(errors="replace"), UNAVAILABLE if problems else OK)


def _recent(decisions: Sequence[Decision], seen: NodeView) -> dict[str, object]:
    """The most recent decisions, the newest first."""
    return {"decisions": [asdict(one) for one in recent(decisions, SHOWN, seen)]}


def _json(document: object) -> HttpAnswer:
    return HttpAnswer("application/json", json.dumps(document).encode() + b"\n")
