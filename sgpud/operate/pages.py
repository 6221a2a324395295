"""What there is to be read over HTTP: each path and its answer, made from the view of the moment.

A page that is to come gets its line in `pages`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from attrs import frozen

from sgpud.core.status import View, document

TEXT = "text/plain; charset=utf-8"
OK, UNAVAILABLE = 200, 503


@frozen
class Answer:
    """What is sent."""

    content_type: str
    body: bytes
    status: int = OK
    headers: tuple[tuple[str, str], ...] = ()
    """More headers, over those that every answer has."""


@frozen
class Page:
    """One path."""

    make: Callable[[str], Answer]
    """Makes the answer, at once and without I/O; it gets the Accept header."""
    everywhere: bool = False
    """Whether it is served to other machines too, whatever `[http] expose_status` says."""


def pages(look: Callable[[], View]) -> Mapping[bytes, Page]:
    """Every page by its path. `look` makes the view, once for each answer."""
    metrics = _Metrics(look)
    return {
        b"/healthz": Page(lambda _: _alive(look()), everywhere=True),
        b"/readyz": Page(lambda _: _ready(look()), everywhere=True),
        b"/metrics": Page(metrics.answer, everywhere=True),
        b"/status": Page(lambda _: _json(document(look()))),
    }


class _Metrics:
    """The metrics; prometheus_client is loaded for the first who asks, and costs 2 MiB."""

    def __init__(self, look: Callable[[], View]) -> None:
        self._look = look
        self._encode: Callable[[str], tuple[bytes, str]] | None = None

    def answer(self, accept: str) -> Answer:
        if self._encode is None:
            from sgpud.operate.metrics import encoder  # noqa: PLC0415 - as above

            self._encode = encoder(self._look)
        body, content_type = self._encode(accept)
        return Answer(content_type, body)


def _alive(seen: View) -> Answer:
    """That this is answered shows that the reactor turns."""
    return _verdict("alive", [f"dead: {part}" for part in seen.dead])


def _ready(seen: View) -> Answer:
    return _verdict(f"ready: {seen.serving}", list(seen.unready))


def _verdict(good: str, problems: list[str]) -> Answer:
    text = "\n".join(problems or [good]) + "\n"
    return Answer(TEXT, text.encode(errors="replace"), UNAVAILABLE if problems else OK)


def _json(document: object) -> Answer:
    return Answer("application/json", json.dumps(document).encode() + b"\n")
