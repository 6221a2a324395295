"""The log of the process: which events are written, where, and in which format.

Whatever is logged goes through twisted.logger; what libraries say to the standard library's
logging is forwarded to it.
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

MOST_EVENTS, EVENTS_WITHIN = 200, 10.0
"""Events of one source that are written, and in how many seconds: the journal's own limit is for
the whole service, so that one source would hide all others."""


@define
class _LogWindow:
    """What one source said since `since`."""

    since: float
    first: LogEvent
    count: int = 0


def _left_out(window: _LogWindow) -> LogEvent:
    """The event that stands for those that were left out."""
    first = window.first
    left_out = window.count - MOST_EVENTS
    return {
        "log_format": "Left out {left_out} more messages within {within:.0f} s, such as: {example}",
        "log_level": level_of(first),
        "log_namespace": logger_of(first),
        "log_time": time.time(),
        "left_out": left_out,
        "within": EVENTS_WITHIN,
        "example": message_of(first),
    }


class RateLimit:
    """Leaves out what one source says too often, and counts it. For any thread.

    A source is what logs the same sentence: whatever misbehaves, it fills no disk, and what others
    say can be read.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: seconds."""
        self._clock = clock
        self._lock = Lock()
        self._windows: dict[tuple[str, object], _LogWindow] = {}

    def admits(self, event: LogEvent) -> bool:
        """Whether this event is to be written."""
        # A library is one source: its sentences carry their values with them.
        source = (logger_of(event), event.get("log_format") if _ours(event) else None)
        with self._lock:
            window = self._windows.get(source)
            if window is None:
                window = self._windows[source] = _LogWindow(self._clock(), event)
            window.count += 1
            return window.count <= MOST_EVENTS

    def ended(self) -> list[LogEvent]:
        """An event for each source that said too much, once its time is over."""
        now = self._clock()
        with self._lock:
            old = [
                source for source, one in self._windows.items() if now >= one.since + EVENTS_WITHIN
            ]
            windows = [self._windows.pop(source) for source in old]
        return [_left_out(one) for one in windows if one.count > MOST_EVENTS]


@implementer(ILogObserver)
class LogOutput:
    """Writes each event that is severe enough to one stream, from any thread; never raises.

    At level debug all of them, else a bounded number from each source.

    Where that stream leads to the journal, its entries get the fields of their events; only what
    journald does not take at once goes through the stream.
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
        """Arguments as of `start_logging`; `journald` is the socket that takes entries."""
        self._stream = stream
        chosen = choose_format(format, stream, environ)
        self._render = RENDER[chosen]
        to_journal = chosen == "journald" and leads_to_journal(stream, environ)
        self._journal = Journal(journald) if to_journal else None
        self._writing = Lock()
        self._limit = RateLimit(clock)
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Write from now on what is at least so severe: debug, info, warn or error.

        Of what libraries say only warnings and worse are written, except at level debug.
        """
        self._level: Level = LogLevel.levelWithName(level)

    def close(self) -> None:
        """Write no more entries of the journal; the stream is the caller's."""
        if self._journal is not None:
            self._journal.close()

    def __call__(self, event: LogEvent) -> None:
        """Write one event, if its level asks for it."""
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
            # The disk is full, the reader went away or the stream was closed: there is nowhere
            # to say so, and no reason to stop.
            return


class StandardLoggingForwarder(logging.Handler):
    """Hands what libraries say to the standard library's logging to twisted.logger."""

    def __init__(self, publisher: ILogObserver) -> None:
        """`publisher` gets the events."""
        super().__init__()
        self._publisher = publisher

    def emit(self, record: logging.LogRecord) -> None:
        """One record becomes one event; a record that cannot be formatted too."""
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

    `format` and `level` are values of [log] in the configuration; the result changes the level
    later. Once per process.
    """
    log = LogOutput(format, level, stream, environ)
    beginner.beginLoggingTo([log], redirectStandardIO=False)
    logging.getLogger().addHandler(StandardLoggingForwarder(publisher))
    return log


def choose_format(asked: str, stream: TextIO, environ: Mapping[str, str]) -> str:
    """The format to write `stream` in: `asked`, or what "auto" means for it."""
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
