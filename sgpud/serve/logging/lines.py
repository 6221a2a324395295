"""A logged event as text for a terminal, text for journald, or a JSON object.

Values from outside cannot forge a line: see `one_line`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from enum import Enum
from math import isfinite
from pathlib import PurePath
from typing import Any

from twisted.logger import LogEvent, LogLevel, formatEvent
from twisted.python import reflect
from twisted.python.failure import Failure

from sgpud.core.text import one_line

Level = Any
"""One of Twisted's LogLevel constants, which can be compared."""
PRIORITIES: Mapping[Level, int] = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}
"""syslog's numbers for Twisted's levels, as journald reads them (sd-daemon(3))."""
_OF_TWISTED = frozenset({"format", "isError", "system", "time", "why"})
"""Fields that Twisted's legacy logging adds to events."""


def as_text(event: LogEvent) -> str:
    """Local time, level and message; a traceback is indented below it."""
    first, *traceback = lines_of(event)
    stamp = _time(event).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    head = f"{stamp} {level_of(event).name:<8} {first}"
    return "".join(f"{line}\n" for line in (head, *traceback))


def as_journald(event: LogEvent) -> str:
    """The same lines without the time, each with the priority prefix of sd-daemon(3)."""
    priority = PRIORITIES[level_of(event)]
    return "".join(f"<{priority}>{line}\n" for line in lines_of(event))


def as_json(event: LogEvent) -> str:
    """One flat object: time (UTC), level, logger, message, the event's own fields, traceback."""
    fields: dict[str, object] = {
        "time": _time(event).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level_of(event).name,
        "logger": logger_of(event),
        "message": message_of(event),
    }
    if traceback := _traceback(event):
        fields["traceback"] = "\n".join(traceback)
    # The standard fields come first and cannot be replaced.
    return json.dumps({**fields, **own_fields(event), **fields}) + "\n"


RENDER: Mapping[str, Callable[[LogEvent], str]] = {
    "text": as_text,
    "journald": as_journald,
    "json": as_json,
}
"""The renderer of each format but "auto"."""


def own_fields(event: LogEvent) -> dict[str, object]:
    """The event's own fields, by name: one line of text, a finite number, a bool or None."""
    return {
        name: _field(value)
        for name, value in event.items()
        if not name.startswith("log_") and name not in _OF_TWISTED and _is_field(value)
    }


def lines_of(event: LogEvent) -> list[str]:
    """The message, and below it, indented, the lines of a traceback."""
    return [message_of(event), *(f"    {line}" for line in _traceback(event))]


def logger_of(event: LogEvent) -> str:
    """The name of the logger, which is a module's."""
    return str(event.get("log_namespace", ""))


def level_of(event: LogEvent) -> Level:
    """The event's level; info if it has none."""
    level: Level = event.get("log_level") or LogLevel.info
    return level


def _is_field(value: object) -> bool:
    return value is None or isinstance(value, (str, int, float, Enum, PurePath, BaseException))


def _field(value: object) -> object:
    if value is None or isinstance(value, (bool, int)) or _is_finite(value):
        return value
    if isinstance(value, Enum):
        return _field(value.value) if _is_field(value.value) else value.name
    try:
        return one_line(str(value))
    except Exception:  # noqa: BLE001 - whatever an exception's own __str__ raises
        return f"unprintable {type(value).__name__}"


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and isfinite(value)


def message_of(event: LogEvent) -> str:
    """The event's message, on one line."""
    message = formatEvent(event).rstrip()
    failure = event.get("log_failure")
    if not message and isinstance(failure, Failure):
        # Twisted logs an unhandled error without a message.
        message = f"{reflect.qual(type(failure.value))}: {failure.getErrorMessage()}"
    return one_line(message)


def _traceback(event: LogEvent) -> list[str]:
    failure = event.get("log_failure")
    if not isinstance(failure, Failure):
        return []
    return [one_line(line) for line in failure.getTraceback().rstrip().split("\n")]


def _time(event: LogEvent) -> datetime:
    return datetime.fromtimestamp(event.get("log_time", 0.0), tz=timezone.utc)
