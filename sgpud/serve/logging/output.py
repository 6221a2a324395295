"""The log of the process: which events are written, where, and in which format.

Everything goes through twisted.logger; what libraries log with the standard library's logging is
forwarded to it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TextIO

from attrs import define
from twisted.logger import (
    ILogObserver,
    LogBeginner,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from sgpud.serve.logging.journal import SOCKET, Journal, as_entry, leads_to_journal
from sgpud.serve.logging.lines import RENDER, Level, level_of, logger_of, message_of

MAX_EVENTS, EVENTS_WITHIN = 200, 10.0
"""Events of one source that are written in so many seconds. The journal's own rate limit covers the
whole service: one source would hide all others."""


@define
class _LogWindow:
    """The events of one source since `since`."""

    since: float
    first: LogEvent
    count: int = 0


def _summary(window: _LogWindow) -> LogEvent:
    """The event that replaces the suppressed ones."""
    first = window.first
    suppressed = window.count - MAX_EVENTS
    return {
        "log_format": "Suppressed {suppressed} messages within {within:.0f} s, e.g.: {example}",
        "log_level": level_of(first),
        "log_namespace": logger_of(first),
        "log_time": time.time(),
        "suppressed": suppressed,
        "within": EVENTS_WITHIN,
        "example": message_of(first),
    }


class RateLimit:
    """Suppresses and counts the events of a source that logs too much. For any thread.

    A source is a message template: nothing that misbehaves can fill the disk or hide the others.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._lock = Lock()
        self._windows: dict[tuple[str, object], _LogWindow] = {}

    def admits(self, event: LogEvent) -> bool:
        """Whether this event may be written."""
        # A library is one source: its messages are formatted already.
        source = (logger_of(event), event.get("log_format") if _ours(event) else None)
        with self._lock:
            window = self._windows.get(source)
            if window is None:
                window = self._windows[source] = _LogWindow(self._clock(), event)
            window.count += 1
            return window.count <= MAX_EVENTS

    def ended(self) -> list[LogEvent]:
        """A summary for each source that logged too much, once its window is over."""
        now = self._clock()
        with self._lock:
            old = [
                source for source, one in self._windows.items() if now >= one.since + EVENTS_WITHIN
            ]
            windows = [self._windows.pop(source) for source in old]
        return [_summary(one) for one in windows if one.count > MAX_EVENTS]


@implementer(ILogObserver)
class LogOutput:
    """Writes the events from a level on to a stream, from any thread; never raises.

    At level debug it writes all of them, else a bounded number from each source.

    If the stream is the journal's, entries are sent with the fields of their events; the stream
    gets only what journald does not accept at once.
    """

    def __init__(
        self,
        format: str,  # noqa: A002
        level: str,
        stream: TextIO,
        environ: Mapping[str, str],
        journald: str = SOCKET,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Arguments as of `start_logging`; `journald` is the socket for entries."""
        self._stream = stream
        chosen = choose_format(format, stream, environ)
        self._render = RENDER[chosen]
        to_journal = chosen == "journald" and leads_to_journal(stream, environ)
        self._journal = Journal(journald) if to_journal else None
        self._writing = Lock()
        self._limit = RateLimit(clock)
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Write only events of this level and above: debug, info, warn or error.

        Of libraries only warnings and above are written, except at level debug.
        """
        self._level: Level = LogLevel.levelWithName(level)

    def close(self) -> None:
        """Close the journal's socket; the stream is the caller's."""
        if self._journal is not None:
            self._journal.close()

    def __call__(self, event: LogEvent) -> None:
        """Write one event, if its level is high enough."""
        least = self._level
        if least is LogLevel.info and not _ours(event):
            least = LogLevel.warn
        if level_of(event) < least:
            return
        for summary in self._limit.ended():
            self._write(summary)
        if least is LogLevel.debug or self._limit.admits(event):
            self._write(event)

    def _write(self, event: LogEvent) -> None:
        if self._journal is not None and self._journal.send(as_entry(event)):
            return
        lines = self._render(event)
        try:
            with self._writing:
                self._stream.write(lines)
                self._stream.flush()
        except (OSError, ValueError):
            # The disk is full, or the stream or its reader has closed: there is nowhere to report
            # it, and no reason to stop.
            return


class StandardLoggingForwarder(logging.Handler):
    """Forwards the standard library's logging, which libraries use, to twisted.logger."""

    def __init__(self, publisher: ILogObserver) -> None:
        """`publisher` gets the events."""
        super().__init__()
        self._publisher = publisher

    def emit(self, record: logging.LogRecord) -> None:
        """One record becomes one event, even if it cannot be formatted."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - the arguments are a library's, and so is what they raise
            text = str(record.msg)
        fields = {}
        if record.exc_info and record.exc_info[1] is not None:
            fields["log_failure"] = _failure(record.exc_info[1])
        Logger(record.name, observer=self._publisher).emit(
            _from_standard(record.levelno), text.replace("{", "{{").replace("}", "}}"), **fields
        )


def start_logging(
    format: str,  # noqa: A002
    level: str,
    stream: TextIO,
    environ: Mapping[str, str],
    beginner: LogBeginner = globalLogBeginner,
    publisher: LogPublisher = globalLogPublisher,
) -> LogOutput:
    """Write everything that this process logs to `stream`, also what it logged before this call.

    `format` and `level` are values of [log] in the configuration; the result can change the level
    later. Call it once per process.
    """
    log = LogOutput(format, level, stream, environ)
    beginner.beginLoggingTo([log], redirectStandardIO=False)
    logging.getLogger().addHandler(StandardLoggingForwarder(publisher))
    return log


def choose_format(asked: str, stream: TextIO, environ: Mapping[str, str]) -> str:
    """The format for `stream`: `asked`, or what "auto" means for it."""
    if asked != "auto":
        return asked
    if leads_to_journal(stream, environ):
        return "journald"
    return "text" if _is_terminal(stream) else "json"


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False


def _ours(event: LogEvent) -> bool:
    return str(event.get("log_namespace", "")).partition(".")[0] == "sgpud"


def _failure(error: BaseException) -> Failure:
    return Failure(error, exc_tb=error.__traceback__)  # type: ignore[no-untyped-call]


def _from_standard(number: int) -> Level:
    for least, level in (
        (logging.CRITICAL, LogLevel.critical),
        (logging.ERROR, LogLevel.error),
        (logging.WARNING, LogLevel.warn),
        (logging.INFO, LogLevel.info),
    ):
        if number >= least:
            return level
    return LogLevel.debug
