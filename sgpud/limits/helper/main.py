"""The helper's process: a unix socket for root alone, one request and one answer per connection.

It is all of sgpud that has a privilege, so it is small: the standard library only, and of that
little. NVML is called by a worker process, so that nothing NVML does can stop it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
import time
from contextlib import suppress

from sgpud.limits.helper.limiter import Limiter
from sgpud.limits.helper.record import Record
from sgpud.limits.helper.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

NAME = "limits.sock"
"""The socket's name in the run directory."""
READ_WITHIN = 1.0
"""Seconds for a request to arrive, and for its answer to be taken."""
LARGEST = 65536
"""Bytes of a request."""
_LOOK_EVERY = 1.0
"""Seconds between two looks at what has ended."""


def main(argv: Sequence[str]) -> NoReturn:
    """Serve; never returns. `argv`: the run directory, the state directory, the cgroup root."""
    run, state, root = argv
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    try:
        os.makedirs(run, mode=0o755, exist_ok=True)
        os.makedirs(state, mode=0o700, exist_ok=True)
        listener = listen(os.path.join(run, NAME))
    except OSError as problem:
        print(f"sgpud: cannot serve in {run}: {problem.strerror}", file=sys.stderr)
        sys.exit(1)
    _ready()
    worker = Worker()
    serve(listener, Limiter(root, Record(state), worker), worker)


def _ready() -> None:
    """Tell systemd, if that has started this, that requests are answered."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + address[1:] if address[0] == "@" else address)
            notify.sendall(b"READY=1")


def listen(path: str) -> socket.socket:
    """A socket that only this user can connect to; OSError."""
    draft = f"{path}.{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(draft)  # of a helper that was killed here: in a container each has the same PID
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(draft)
    os.chmod(draft, 0o600)
    listener.listen(64)
    os.replace(draft, path)  # what an earlier helper left there
    return listener


def serve(listener: socket.socket, limiter: Limiter, worker: Worker) -> NoReturn:
    """Answer one connection after the other."""
    listener.settimeout(_LOOK_EVERY)
    while True:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            worker.rest()
            continue
        with connection:
            try:
                _answer(connection, limiter)
            except OSError as problem:
                print(f"sgpud: a request was not answered: {problem}", file=sys.stderr)


def _answer(connection: socket.socket, limiter: Limiter) -> None:
    size = struct.calcsize("3i")
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, user, _ = struct.unpack("3i", peer)
    if user != os.geteuid():
        print(f"sgpud: refusing a request of user {user}", file=sys.stderr)
        return
    received, deadline = b"", time.monotonic() + READ_WITHIN
    while b"\n" not in received and len(received) <= LARGEST:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        data = connection.recv(LARGEST)
        if not data:
            break
        received += data
    if not received:
        return  # who only looks whether somebody listens
    try:
        request = json.loads(received)
    except (ValueError, RecursionError):
        request = None
    answer = json.dumps(limiter.answer(request)).encode() + b"\n"
    connection.settimeout(READ_WITHIN)
    connection.sendall(answer)
