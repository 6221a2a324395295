"""The log of the process: which events are written, where, and in which format.

Whatever is logged goes through twisted.logger; what libraries say to the standard library's
logging is forwarded to it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from threading import Lock
from typing import TextIO

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

from sgpud.operate.lines import RENDER, Level, level_of


@implementer(ILogObserver)
class Log:
    """Writes each event that is severe enough to one stream, from any thread; never raises."""

    def __init__(self, format: str, level: str, stream: TextIO, environ: Mapping[str, str]) -> None:  # noqa: A002
        """Arguments as of `start_logging`."""
        self._stream = stream
        self._render = RENDER[choose_format(format, stream, environ)]
        self._writing = Lock()
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """Write from now on what is at least so severe: debug, info, warn or error.

        Of what libraries say only warnings and worse are written, except at level debug.
        """
        self._level: Level = LogLevel.levelWithName(level)

    def __call__(self, event: LogEvent) -> None:
        """Write one event, if its level asks for it."""
        least = self._level
        if least is LogLevel.info and not _ours(event):
            least = LogLevel.warn
        if level_of(event) < least:
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


class Forward(logging.Handler):
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
) -> Log:
    """Write everything that this process logs to `stream`, also what it logged before this call.

    `format` and `level` are values of [log] in the configuration; the result changes the level
    later. Once per process.
    """
    log = Log(format, level, stream, environ)
    beginner.beginLoggingTo([log], redirectStandardIO=False)
    logging.getLogger().addHandler(Forward(publisher))
    return log


def choose_format(asked: str, stream: TextIO, environ: Mapping[str, str]) -> str:
    """The format to write `stream` in: `asked`, or what "auto" means for it.

    systemd names the stream that it connected to the journal in JOURNAL_STREAM, so that a
    redirected one is not taken for it (systemd.exec(5)).
    """
    if asked != "auto":
        return asked
    try:
        status = os.fstat(stream.fileno())
        terminal = stream.isatty()
    except (OSError, ValueError):
        return "json"
    if environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
        return "journald"
    return "text" if terminal else "json"


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
