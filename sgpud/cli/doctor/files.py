"""Small ways to look at files and sockets that never raise: what cannot be read is not there."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

from sgpud.files import open_regular

MOST = 4 << 20
"""Bytes that are read of one file."""
PATIENCE = 2.0
"""Seconds for a socket to take a connection."""


def there(path: Path) -> bool:
    """Whether something has this name, be it a link that leads nowhere."""
    try:
        path.lstat()
    except (OSError, ValueError):
        return False
    return True


def beginning(path: Path) -> str:
    """The beginning of a text; empty where there is none."""
    try:
        with open_regular(path) as opened:
            return opened.read(MOST).decode(errors="replace")
    except (OSError, ValueError):
        return ""


def answers(path: Path) -> str:
    """`answers`, `absent`, or why nobody answers on a socket."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return "not a socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(PATIENCE)
            probe.connect(str(path))
    except FileNotFoundError:
        return "absent"
    except ConnectionRefusedError:
        return "nobody listens on it"
    except OSError as problem:
        return problem.strerror or str(problem)
    return "answers"


def folder_state(path: Path) -> str:
    """`there`, `absent`, or what has this name instead of a folder."""
    try:
        return "there" if stat.S_ISDIR(path.stat().st_mode) else "no folder"
    except FileNotFoundError:
        return "absent"
    except OSError as problem:
        return f"not readable ({problem.strerror or problem})"
