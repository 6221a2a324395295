"""The client of the daemon's sockets. The standard library only, so that commands start fast."""

from __future__ import annotations

import errno
import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sgpud.core.errors import SgpudError

CONTROL = "control.sock"
"""The socket's name in the run directory."""
STATUS = "status.sock"
"""Likewise of the status socket."""
REQUEST_LIMIT = 2**20
"""Bytes of a request, without its line end: a configuration file of 256 KiB fits, as JSON."""
_LARGEST = 64 * 1024 * 1024
"""Bytes of an answer that are read."""
_NOTHING: Mapping[str, object] = MappingProxyType({})


class ControlError(SgpudError):
    """A request that failed or was refused: why, and what to do."""


class AbsentError(ControlError):
    """No process answers on the control socket."""


class RefusedRequestError(ControlError):
    """sgpud refused; the reason is its answer."""


def ask(
    path: Path, verb: str, arguments: Mapping[str, object] = _NOTHING, timeout: float = 30
) -> dict[str, Any]:
    """What the sgpud that listens on `path` answers to `verb`; blocks for `timeout` s at most.

    Raises AbsentError, RefusedRequestError, or ControlError for what is neither.
    """
    request = json.dumps({"verb": verb, "arguments": dict(arguments)}).encode()
    if len(request) > REQUEST_LIMIT:
        raise ControlError(f"The request has {len(request)} bytes; the limit is {REQUEST_LIMIT}")
    try:
        received = exchange(path, request + b"\n", timeout)
    except TimeoutError:
        raise ControlError(
            f"sgpud did not answer {verb} on {path} within {timeout:g} s. It may still carry"
            " out the request: see its log (journalctl -u sgpud, or kubectl logs)",
        ) from None
    except OSError as problem:
        raise _no_connection(path, problem) from problem
    return _answer(path, verb, received)


def exchange(path: Path, request: bytes, timeout: float) -> bytes:
    """Send a request to a unix socket; returns the whole answer. OSError; TimeoutError."""
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(str(path))
        # sgpud may refuse and close the connection before the request was sent.
        with suppress(BrokenPipeError):
            connection.sendall(request)
        received = bytearray()
        while len(received) < _LARGEST:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            connection.settimeout(left)
            try:
                data = connection.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                break
            received += data
        return bytes(received)


def _no_connection(path: Path, problem: OSError) -> ControlError:
    if isinstance(problem, (FileNotFoundError, ConnectionRefusedError)):
        return AbsentError(
            f"No sgpud answers on {path}. Start it (systemctl start sgpud), or name the socket of"
            " the running one; a standby has no control socket",
        )
    if isinstance(problem, PermissionError):
        return ControlError(
            f"No permission to use {path}: run this command as root, or"
            " as a member of the group sgpud for status, explain and plan",
        )
    if problem.errno in {errno.ENOTSOCK, errno.EPROTOTYPE, errno.ENOTDIR}:
        return ControlError(f"{path} is not a control socket of sgpud")
    return ControlError(f"Cannot reach sgpud on {path}: {problem.strerror or problem}")


def _answer(path: Path, verb: str, received: bytes) -> dict[str, Any]:
    if not received:
        raise ControlError(f"sgpud stopped before it answered {verb}: see its log")
    try:
        answer = json.loads(received)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict):
        result, error = answer.get("answer"), answer.get("error")
        if answer.get("ok") is True and isinstance(result, dict):
            return result
        if answer.get("ok") is False and isinstance(error, str):
            raise RefusedRequestError(error)
    raise ControlError(f"The process on {path} is not sgpud, or another version: restart it")


WITHIN = 10.0
"""Seconds for an answer."""
_REQUEST = b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n"


class StatusError(SgpudError):
    """The status cannot be read: why, and what to do."""


def read_status(run: Path, within: float = WITHIN) -> dict[str, Any]:
    """The status document of the sgpud whose sockets are in the folder `run`; StatusError."""
    path = run / STATUS
    try:
        received = exchange(path, _REQUEST, within)
    except (FileNotFoundError, ConnectionRefusedError):
        reason = f"No sgpud answers on {path}. Start it (systemctl start sgpud), or name its folder"
        raise StatusError(f"{reason} with --run-dir") from None
    except PermissionError:
        reason = f"No permission to read {path}: run this as root, or as a member of its group"
        raise StatusError(reason) from None
    except TimeoutError:
        raise StatusError(f"sgpud did not answer on {path} within {within:g} s") from None
    except OSError as problem:
        raise StatusError(f"Cannot read {path}: {problem.strerror or problem}") from problem
    return _document(path, received)


def _document(path: Path, received: bytes) -> dict[str, Any]:
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split()
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if words[1:2] == [b"200"] and isinstance(document, dict):
        return document
    reason = body.decode("utf-8", "replace").strip()[:200] if words[1:2] != [b"200"] else ""
    what = f": {reason}" if reason else ": it is not sgpud, or another version; restart it"
    raise StatusError(f"The process on {path} returned no status{what}")
