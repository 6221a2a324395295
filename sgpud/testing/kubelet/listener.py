"""A gRPC server on a unix socket whose file outlives it or not, as a test wants it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import threading
from typing import TYPE_CHECKING

import grpc

if TYPE_CHECKING:
    from pathlib import Path

ENDING = 10.0
"""Seconds that a server or a reader may take to end."""


class BoundServer:
    """A gRPC server on a unix socket whose file it leaves alone when it stops.

    gRPC unlinks a socket by its path when the server ends. A killed kubelet's socket stays, and a
    stopped one's may have another's in its place already. So the socket is bound through a
    descriptor of its directory, which leads nowhere by the time that gRPC unlinks.
    """

    def __init__(self, path: Path, handler: grpc.GenericRpcHandler) -> None:
        """Bind and serve; OSError where that is impossible."""
        self.path = path
        self._pool = concurrent.futures.ThreadPoolExecutor(16, thread_name_prefix=path.name)
        self._server = grpc.server(self._pool, options=(("grpc.so_reuseport", 0),))
        self._server.add_generic_rpc_handlers((handler,))
        self._directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
        address = f"unix:/proc/self/fd/{self._directory}/{path.name}"
        bound = False
        with contextlib.suppress(RuntimeError):
            bound = self._server.add_insecure_port(address) != 0
        if not bound:
            os.close(self._directory)
            raise OSError(f"cannot listen on {path}")
        self._identity = _identity(path)
        self._ended = threading.Event()
        self._server.start()

    def cancel(self) -> None:
        """Stop listening and cut every call short, at once."""
        nowhere = os.open(os.devnull, os.O_PATH)
        os.dup2(nowhere, self._directory, inheritable=False)
        os.close(nowhere)
        self._ended = self._server.stop(None)

    def close(self, *, leave_socket: bool) -> None:
        """Wait for the end, after `cancel`; TimeoutError when it does not come.

        The socket file is unlinked, if it is still ours, unless it is to be left.
        """
        ended = self._ended.wait(ENDING)
        self._pool.shutdown(wait=ended)
        os.close(self._directory)
        if not leave_socket and _identity(self.path) == self._identity:
            self.path.unlink(missing_ok=True)
        if not ended:
            raise TimeoutError(f"the server on {self.path} did not end within {ENDING} s")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
