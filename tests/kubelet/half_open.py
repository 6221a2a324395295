"""A client that begins a call and never sends its request, in HTTP/2 as it is on the wire."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING

from tests.surroundings import WITHIN

if TYPE_CHECKING:
    from typing_extensions import Self

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS = 0, 1, 3, 4
_END_STREAM, _END_HEADERS = 1, 4
NOTHING = b""
HALF = struct.pack("!BI", 0, 1000) + b"half a request"
"""A message of 1 000 bytes that breaks off."""


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack("!I", len(body))[1:] + struct.pack("!BBI", kind, flags, stream) + body


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


class HalfOpenCall:
    """One call, on a connection of its own."""

    def __init__(self, address: str, method: str, sent: bytes) -> None:
        """Call `method` at `unix:PATH`, and send no more than `sent` of the request."""
        pairs = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        # Each a literal that is not indexed.
        fields = b"".join(b"\0" + _text(name) + _text(value) for name, value in pairs.items())
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address.removeprefix("unix:"))
        begin = _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, _END_HEADERS, 1, fields)
        self._socket.sendall(_PREFACE + begin + (_frame(_DATA, 0, 1, sent) if sent else b""))
        self._read = b""
        self._ended = False

    def __enter__(self) -> Self:
        """Ready."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hang up."""
        self._socket.close()

    @property
    def ended(self) -> bool:
        """Whether the server has ended it."""
        while not self._ended and select.select([self._socket], [], [], 0)[0]:
            more = self._socket.recv(65536)
            self._ended = not more
            self._read += more
            while len(self._read) >= 9 and len(self._read) >= 9 + self._length:
                kind, flags, stream = struct.unpack("!BBI", self._read[3:9])
                last = kind == _RESET or (kind == _HEADERS and flags & _END_STREAM)
                self._ended = self._ended or (stream == 1 and bool(last))
                self._read = self._read[9 + self._length :]
        return self._ended

    @property
    def _length(self) -> int:
        return int.from_bytes(self._read[:3], "big")


def end_all(calls: Sequence[HalfOpenCall], look: Callable[[], None]) -> None:
    """Have the server look until it has ended every one of them."""
    pause, until = Event(), time.monotonic() + WITHIN
    while not all([call.ended for call in calls]):  # noqa: C419 - each one is to be read
        assert time.monotonic() < until, "half-open calls are not ended"
        look()
        pause.wait(0.02)
