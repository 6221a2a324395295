"""The HTTP of the stand-in API server: one thread for each connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from sgpud.testing.api_objects import Object, Refused


class Answers(Protocol):
    """What answers."""

    @property
    def running(self) -> bool:
        """Whether it is there at all."""

    def admit(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Take note of a call; Refused where it gets no answer of its own."""

    def answer(
        self, method: str, path: str, query: Mapping[str, str], body: Object, content_type: str
    ) -> Object:
        """The answer to a call; Refused."""

    def selected(self, path: str, query: Mapping[str, str]) -> Callable[[Object], bool]:
        """What a field selector selects; Refused for one that may not be used."""

    def watch(self, path: str, query: Mapping[str, str]) -> Iterator[Object]:
        """The events of a watch."""


class Server(ThreadingHTTPServer):
    """Says nothing of connections that break: clients are killed and cut here."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_of: Answers

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called
        """Nothing: `calls` has it."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        api, parts = self.server_of, urlsplit(self.path)
        if not api.running:
            self.close_connection = True
            return
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        try:
            api.admit("WATCH" if "watch" in query else self.command, self.path, dict(self.headers))
            if "watch" in query:
                api.selected(parts.path, query)
            else:
                kind = self.headers.get("Content-Type", "application/json")
                answer = api.answer(self.command, parts.path, query, body, kind)
                self._send(200, answer, {})
                return
        except Refused as refused:
            status = {"kind": "Status", "code": refused.status, "message": refused.message}
            self._send(refused.status, status, refused.headers)
            return
        self._watch(parts.path, query)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _send(self, status: int, answer: Object, headers: Mapping[str, str]) -> None:
        raw = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def _watch(self, path: str, query: Mapping[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in self.server_of.watch(path, query):
                raw = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True
