"""Entries of systemd's journal, with the fields of a logged event.

journald's native protocol: each entry is one datagram of fields, as systemd's page "Native Journal
Protocol" describes it. What cannot be sent this way is written to the stream instead.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from typing import TextIO

from twisted.logger import LogEvent

from sgpud.serve.logging.lines import PRIORITIES, level_of, lines_of, logger_of, own_fields

SOCKET = "/run/systemd/journal/socket"
"""Where journald receives entries."""
NAME = 64
"""Characters of a field's name at most; journald drops longer ones."""
_SIZE = 8
"""Bytes of the little-endian length before a multi-line value."""


class Journal:
    """Sends entries to journald. Never blocks: journald may be busy or restarting."""

    def __init__(self, address: str = SOCKET) -> None:
        """`address` is journald's socket, which may appear later."""
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)

    def send(self, entry: bytes) -> bool:
        """Whether journald has the entry; False too if it is too large for a datagram."""
        try:
            self._socket.sendto(entry, self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Stop sending."""
        self._socket.close()


def leads_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether `stream` is the one that systemd connected to the journal.

    JOURNAL_STREAM has its device and inode, so that a redirected stream is recognised
    (systemd.exec(5)).
    """
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def as_entry(event: LogEvent) -> bytes:
    """One entry: message and traceback, priority, logger, and SGPUD_<FIELD> for its own fields."""
    fields = {
        "MESSAGE": "\n".join(lines_of(event)),
        "PRIORITY": str(PRIORITIES[level_of(event)]),
        "SYSLOG_IDENTIFIER": "sgpud",
        "LOGGER": logger_of(event),
    }
    for name, value in own_fields(event).items():
        if value is not None:
            fields[_name(name)] = value if isinstance(value, str) else json.dumps(value)
    return b"".join(_pair(name, value) for name, value in fields.items())


def _name(name: str) -> str:
    """A name that journald accepts: capitals, digits and underscores."""
    return ("SGPUD_" + re.sub("[^A-Z0-9_]", "_", name.upper()))[:NAME]


def _pair(name: str, value: str) -> bytes:
    raw = value.encode(errors="backslashreplace")
    if b"\n" not in raw:
        return b"%s=%s\n" % (name.encode(), raw)
    return b"%s\n%s%s\n" % (name.encode(), len(raw).to_bytes(_SIZE, "little"), raw)
