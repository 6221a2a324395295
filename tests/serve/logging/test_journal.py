"""Entries of the journal: what journald is sent, and what happens where it takes nothing."""

from __future__ import annotations

import io
import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, LogPublisher
from twisted.python import log as twisted_log
from twisted.python.failure import Failure
from zope.interface import implementer

from sgpud.serve.logging.journal import Journal, as_entry
from sgpud.serve.logging.output import LogOutput


def read(entry: bytes) -> dict[str, str]:
    """The fields of an entry, as journald reads them; it takes no field twice here."""
    fields: dict[str, str] = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(entry[:8], "little")
            value, end, entry = entry[8 : 8 + size], entry[8 + size : 9 + size], entry[9 + size :]
            assert end == b"\n"
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name)
        assert name.decode() not in fields
        fields[name.decode()] = value.decode()
    return fields


class Journald:
    """A socket in the place of journald's, and a stream that systemd connected to the journal."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "socket")
        self.stream = (folder / "stream").open("w+")
        status = os.fstat(self.stream.fileno())
        self.environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(0)
        self.logs: list[LogOutput] = []

    def log(self, format_: str = "auto", stream: TextIO | None = None) -> LogOutput:
        log = LogOutput(format_, "info", stream or self.stream, self.environ, self.path)
        self.logs.append(log)
        return log

    def entries(self) -> list[dict[str, str]]:
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(read(self.socket.recv(1 << 20)))
        return found

    def streamed(self) -> list[str]:
        self.stream.seek(0)
        return self.stream.read().splitlines()

    def close(self) -> None:
        for log in self.logs:
            log.close()
        self.socket.close()
        self.stream.close()


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    journald = Journald(tmp_path)
    yield journald
    journald.close()


def test_an_entry_has_message_priority_and_the_fields_of_its_event(journald: Journald) -> None:
    Logger("sgpud.gpus.nvml.monitor", observer=journald.log()).warn(
        "{gpu}: {problem}", gpu="GPU-1", problem=OSError(5, "lost"), count=2, known=True, xid=None
    )
    assert journald.entries() == [
        {
            "MESSAGE": "GPU-1: [Errno 5] lost",
            "PRIORITY": "4",
            "SYSLOG_IDENTIFIER": "sgpud",
            "LOGGER": "sgpud.gpus.nvml.monitor",
            "SGPUD_GPU": "GPU-1",
            "SGPUD_PROBLEM": "[Errno 5] lost",
            "SGPUD_COUNT": "2",
            "SGPUD_KNOWN": "true",
        }
    ]
    assert journald.streamed() == []


def test_fields_of_twisteds_legacy_logging_are_left_out(journald: Journald) -> None:
    older = twisted_log.LogPublisher(publishPublisher=LogPublisher(journald.log()))
    journald.logs[0].set_level("debug")
    older.msg("Port closed", isError=0)
    (entry,) = journald.entries()
    assert entry["MESSAGE"] == "Port closed"
    assert not [name for name in entry if name.startswith("SGPUD_")]


def test_a_traceback_is_in_its_entry(journald: Journald) -> None:
    log = Logger("sgpud.app", observer=journald.log())
    try:
        raise ValueError("wrong\n<0>worse")  # noqa: TRY301 - it is what is looked for
    except ValueError:
        log.failure("{verb} failed", verb="reload")
    (entry,) = journald.entries()
    first, *rest = entry["MESSAGE"].split("\n")
    assert (first, entry["PRIORITY"], entry["SGPUD_VERB"]) == ("reload failed", "2", "reload")
    assert rest[0] == "    Traceback (most recent call last):"
    assert "    builtins.ValueError: wrong" in rest


def test_what_journald_does_not_accept_goes_to_the_stream(journald: Journald) -> None:
    log = Logger("sgpud.app", observer=journald.log())
    sent = 0
    while not journald.streamed():
        # Nobody reads: its queue fills, and the log must not wait for it.
        log.info("message {number}", number=sent)
        sent += 1
    assert journald.streamed() == [f"<6>message {sent - 1}"]
    assert len(journald.entries()) == sent - 1
    log.info("there again")
    assert [entry["MESSAGE"] for entry in journald.entries()] == ["there again"]
    Path(journald.path).unlink()
    log.info("gone")
    assert journald.streamed()[-1] == "<6>gone"


def test_an_entry_too_large_for_a_datagram_goes_to_the_stream(journald: Journald) -> None:
    event: LogEvent = {f"field{number}": "x" * 4000 for number in range(300)}
    journald.log()({**event, "log_format": "large", "log_namespace": "sgpud.app"})
    assert journald.entries() == []
    assert journald.streamed() == ["<6>large"]


@pytest.mark.parametrize("format_", ["text", "json"])
def test_another_format_is_written_to_the_stream(journald: Journald, format_: str) -> None:
    Logger("sgpud.app", observer=journald.log(format_)).info("hello")
    assert journald.entries() == []
    assert "hello" in journald.streamed()[0]


def test_a_redirected_stream_gets_its_lines(journald: Journald) -> None:
    stream = io.StringIO()
    Logger("sgpud.app", observer=journald.log("journald", stream)).info("hello")
    assert journald.entries() == []
    assert stream.getvalue() == "<6>hello\n"


def test_without_journald_sending_fails(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path / "none"))
    assert not journal.send(b"MESSAGE=hello\n")
    journal.close()


@implementer(ILogObserver)
class Kept:
    """An observer that keeps the last event."""

    def __call__(self, event: LogEvent) -> None:
        self.event = event


@given(
    st.text(st.characters()),
    st.dictionaries(
        st.text(st.characters()),
        st.none() | st.floats() | st.integers() | st.text(st.characters()),
        max_size=3,
    ),
    st.none() | st.builds(ValueError, st.just("wrong")),
)
def test_any_event_is_one_entry_with_a_message(
    format_: str, fields: dict[str, object], failure: ValueError | None
) -> None:
    kept = Kept()
    Logger("sgpud.test\x00\n", observer=kept).emit(LogLevel.error, "hello")
    event = {**fields, **kept.event, "log_format": format_}
    if failure is not None:
        event["log_failure"] = Failure(failure)
    fields_read = read(as_entry(event))
    assert fields_read["PRIORITY"] == "3"
    assert fields_read["LOGGER"] == "sgpud.test\x00\n"
    assert all(line.isprintable() for line in fields_read["MESSAGE"].split("\n"))
    assert failure is None or fields_read["MESSAGE"].endswith("builtins.ValueError: wrong")
