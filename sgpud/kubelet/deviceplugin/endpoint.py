"""One endpoint: a gRPC server on a socket file, of one generation of one pool."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import grpc
from twisted.internet.defer import Deferred

from sgpud.bridge import Reactor, in_thread
from sgpud.core.errors import SgpudError
from sgpud.core.sharing.share_id import MESSAGE_LIMIT
from sgpud.kubelet.deviceplugin.servicer import SLACK, STARTS, STREAMS, DevicePluginServicer

WORKERS = STREAMS + STARTS + 6
"""Three streams, a fourth while it is refused, the starts of containers, which may wait, and five
calls at a time; more calls queue."""
FINISH_WITHIN = 0.2
"""Seconds for calls in flight when an endpoint retires: an Allocate that is cut fails its pod."""
RECEIVE_LIMIT = 2 * MESSAGE_LIMIT + SLACK
"""Bytes of one request, refused by gRPC before they are received: GetPreferredAllocation carries
every free id of the pool, at most twice, and a list of them all has to fit into a message."""
SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", RECEIVE_LIMIT),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
)

_NAME = re.compile(r"sgpud-[0-9a-f]{8}-[0-9a-z]{1,12}-[0-9]{1,12}\.sock")


class EndpointError(SgpudError):
    """An endpoint that could not be made."""

    def __init__(self, path: Path, problem: str) -> None:
        """`problem`: what stands against it."""
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        """What was tried and why it failed."""
        return f"cannot listen on {self.path}: {self.problem}"


def socket_name(resource: str, nonce: str, generation: int) -> str:
    """A fresh file name for each generation of each pool of each process.

    gRPC unlinks a socket by path when its server stops, so a name is never used again; and a
    resource name can be longer than the 107 bytes that a socket's path can have.
    """
    digest = hashlib.blake2s(resource.encode(), digest_size=4).hexdigest()
    return f"sgpud-{digest}-{nonce}-{generation}.sock"


def clear_stale(directory: Path) -> list[str]:
    """Remove the sockets that an earlier sgpud left in the directory; their names.

    Only for the holder of the directory's lock: nobody else's can be alive then.
    """
    gone = []
    for entry in os.scandir(directory):
        # One that cannot be removed, or that a starting kubelet removes first, is no hindrance.
        with suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            if _NAME.fullmatch(entry.name) and stat.S_ISSOCK(status.st_mode):
                Path(entry.path).unlink()
                gone.append(entry.name)
    return gone


def try_bind(directory: Path, nonce: str) -> str:
    """Whether a socket could be bound in the directory: empty, or the reason why not."""
    path = directory / socket_name("", nonce, 0)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(str(path))
        path.unlink()
    except OSError as problem:
        return f"cannot bind a socket in {directory}: {problem.strerror or problem}"
    return ""


def warm_up() -> None:
    """Have gRPC import what its first server and channel need.

    It takes 4 to 8 ms, which a standby should not spend while the node is without shares.
    """
    grpc.server(ThreadPoolExecutor(1)).stop(None)
    grpc.insecure_channel("unix:").close()


def listen(
    path: Path, handlers: Sequence[grpc.GenericRpcHandler], workers: int, name: str
) -> grpc.Server:
    """A gRPC server that listens on a socket; EndpointError when that cannot be."""
    server = grpc.server(
        ThreadPoolExecutor(workers, thread_name_prefix=name), options=SERVER_OPTIONS
    )
    server.add_generic_rpc_handlers(handlers)
    try:
        if not server.add_insecure_port(f"unix:{path}"):
            raise EndpointError(path, "gRPC could not bind it")
        server.start()
    except RuntimeError as problem:
        raise EndpointError(path, str(problem)) from problem
    return server


class Endpoint:
    """Serves a pool on its socket from `start` to `stop`."""

    def __init__(self, path: Path, servicer: DevicePluginServicer, reactor: Reactor) -> None:
        """Nothing listens yet."""
        self.path = path
        self._servicer = servicer
        self._reactor = reactor
        self._server: grpc.Server | None = None

    @property
    def prefers(self) -> bool:
        """Whether it offers GetPreferredAllocation."""
        return self._servicer.prefers

    @property
    def asks(self) -> bool:
        """Whether it wants PreStartContainer."""
        return self._servicer.asks

    def start(self) -> None:
        """Listen; EndpointError when that cannot be."""
        self._server = listen(self.path, [self._servicer.handlers()], WORKERS, "kubelet")

    def hold(self) -> None:
        """Send no more lists; calls are answered."""
        self._servicer.hold()

    def end_unread(self) -> None:
        """End the streams whose client does not read; called once a second."""
        self._servicer.end_unread()

    def stop(self) -> Deferred[None]:
        """End the streams, let calls in flight finish, close, remove the socket file."""
        self._servicer.close()
        server, self._server = self._server, None

        def wait() -> None:
            if server is not None:
                server.stop(FINISH_WITHIN).wait()
            # Whatever has become of its directory: there is nothing to be removed then.
            with suppress(OSError):
                self.path.unlink()

        return in_thread(self._reactor, wait)
