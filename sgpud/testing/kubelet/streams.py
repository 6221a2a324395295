"""A ListAndWatch stream that is read beside the one that counts."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Protocol

import grpc

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stream(Protocol):
    """What gRPC gives for a call that answers with a stream."""

    def __iter__(self) -> Iterator[bytes]: ...

    def cancel(self) -> object:
        """End the call from this side."""


class ExtraStream:
    """A further ListAndWatch on a plugin's connection, read in a thread of its own."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._status = (grpc.StatusCode.OK, "")
        threading.Thread(target=self._read, name="extra list", daemon=True).start()

    def next(self, timeout: float) -> bytes:
        """Give the next message's bytes; TimeoutError after `timeout` seconds without one."""
        try:
            return self._messages.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"no list message within {timeout} s") from None

    def wait_ended(self, timeout: float) -> tuple[grpc.StatusCode, str]:
        """Wait for the stream's end and give its status; TimeoutError when it does not end."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the stream did not end within {timeout} s")
        return self._status

    def cancel(self) -> None:
        """End the stream from this side."""
        self._stream.cancel()

    def _read(self) -> None:
        try:
            for data in self._stream:
                self._messages.put(data)
        except grpc.RpcError as error:
            self._status = status_of(error)
        finally:
            self._ended.set()


def status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Give a failed call's status and words."""
    return error.code(), error.details() or ""
