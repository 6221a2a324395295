"""Reads the status document from a running sgpud. The standard library only, as client.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sgpud.core.errors import SgpudError
from sgpud.serve.control.client import STATUS, exchange

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
