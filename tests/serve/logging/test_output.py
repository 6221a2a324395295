"""How events are written, and that nothing in them can forge a line."""

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from sgpud.serve.logging.lines import RENDER, as_journald, as_json, as_text
from sgpud.serve.logging.output import (
    EVENTS_WITHIN,
    MAX_EVENTS,
    LogOutput,
    StandardLoggingForwarder,
    choose_format,
)

NASTY = "GPU-1\n<0>kernel: all is lost\r\x1b[2J"


@implementer(ILogObserver)
class Events:
    """An observer that keeps what it sees."""

    def __init__(self) -> None:
        self.seen: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        self.seen.append(event)


def event(format_: str = "hello", level: Any = LogLevel.info, **fields: object) -> LogEvent:
    kept = Events()
    Logger("sgpud.test", observer=kept).emit(level, format_, **fields)
    kept.seen[0]["log_time"] = 1_700_000_000.25
    return kept.seen[0]


def fail(message: str) -> None:
    raise ValueError(message)


def failed(message: str) -> LogEvent:
    kept = Events()
    log = Logger("sgpud.test", observer=kept)
    try:
        fail(message)
    except ValueError:
        log.failure("{verb} failed", verb="reload")
    kept.seen[0]["log_time"] = 1_700_000_000.25
    return kept.seen[0]


def log_to(stream: TextIO, level: str = "info", format_: str = "text") -> LogOutput:
    return LogOutput(format_, level, stream, {})


# The formats. ------------------------------------------------------------------------------------


def test_a_text_line_has_time_level_and_message() -> None:
    line = as_text(event("{n} GPUs", n=2))
    assert re.fullmatch(r"2023-11-1[45] \d\d:\d\d:\d\d info     2 GPUs\n", line)


def test_a_traceback_is_indented_below_its_text_line() -> None:
    first, *rest = as_text(failed("wrong")).splitlines()
    assert first.endswith("critical reload failed")
    assert rest[0] == "    Traceback (most recent call last):"
    assert rest[-1] == "    builtins.ValueError: wrong"


@pytest.mark.parametrize(
    ("level", "prefix"),
    [("debug", "<7>"), ("info", "<6>"), ("warn", "<4>"), ("error", "<3>"), ("critical", "<2>")],
)
def test_journald_reads_the_priority_off_the_line(level: str, prefix: str) -> None:
    assert as_journald(event(level=LogLevel.levelWithName(level))) == f"{prefix}hello\n"


def test_every_line_of_a_traceback_has_the_priority() -> None:
    lines = as_journald(failed("wrong\n<7>not so bad")).splitlines()
    assert len(lines) > 3
    assert all(line.startswith(("<2>reload", "<2>    ")) for line in lines)


def test_a_json_line_is_one_flat_object() -> None:
    line = as_json(
        event(
            "{resource}: {problem}",
            resource="example.com/gpu",
            generation=3,
            ratio=0.5,
            bad=float("nan"),
            path=Path("/run"),
            level_like=LogLevel.warn,
            problem=OSError(2, "gone"),
            nothing=None,
            internals={"a": 1},
        )
    )
    assert line.endswith("}\n")
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "logger": "sgpud.test",
        "message": "example.com/gpu: [Errno 2] gone",
        "resource": "example.com/gpu",
        "generation": 3,
        "ratio": 0.5,
        "bad": "nan",
        "path": "/run",
        "problem": "[Errno 2] gone",
        "nothing": None,
    }


def test_a_traceback_is_one_field_of_its_json_line() -> None:
    line = as_json(failed("wrong"))
    found = json.loads(line)
    assert line.count("\n") == 1
    assert found["message"] == "reload failed"
    assert found["traceback"].endswith("\nbuiltins.ValueError: wrong")
    assert set(found) == {"time", "level", "logger", "message", "traceback", "verb"}


def test_a_failure_without_a_message_is_described_by_its_exception() -> None:
    bare = {**failed("wrong\n<0>worse"), "log_format": ""}
    assert json.loads(as_json(bare))["message"] == r"builtins.ValueError: wrong\n<0>worse"


def test_fields_cannot_replace_standard_fields() -> None:
    found = json.loads(as_json(event("{message}", message="theirs", time="never", level_="x")))
    assert found["time"] == "2023-11-14T22:13:20.250Z"
    assert found["message"] == "theirs"


@pytest.mark.parametrize("format_", ["text", "journald", "json"])
def test_a_value_from_outside_cannot_forge_a_line(format_: str) -> None:
    lines = RENDER[format_](event("found {uuid}", uuid=NASTY))
    assert lines.count("\n") == 1
    assert "\x1b" not in lines
    assert "\r" not in lines
    assert "all is lost" in lines


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize("format_", ["text", "journald", "json"])
def test_an_unprintable_value_is_named_by_its_type(format_: str) -> None:
    assert "log" in RENDER[format_](event("log {it} {missing}", it=BrokenError()))


@given(
    st.text(st.characters()),
    st.dictionaries(
        st.text(st.characters()),
        st.none() | st.floats() | st.integers() | st.binary() | st.text(st.characters()),
    ),
    st.sampled_from(sorted(RENDER)),
)
def test_any_event_becomes_one_line(
    format_: str, fields: dict[str, object], written_as: str
) -> None:
    known = event("hello")
    line = RENDER[written_as]({**fields, **known, "log_format": format_})
    assert line.endswith("\n")
    assert line[:-1].isprintable()


# The level. --------------------------------------------------------------------------------------


def test_the_level_changes_while_it_runs() -> None:
    stream = io.StringIO()
    log = log_to(stream, "warn")
    log(event("first"))
    log.set_level("debug")
    log(event("second", level=LogLevel.debug))
    log.set_level("error")
    log(event("third", level=LogLevel.warn))
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["second"]


def test_at_level_info_libraries_log_only_warnings() -> None:
    stream = io.StringIO()
    log = log_to(stream, "info")
    library = Logger("twisted.internet", observer=log)
    library.info("factory starting")
    library.warn("trouble")
    log.set_level("debug")
    library.info("factory stopping")
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["trouble", "stopping"]


class Full(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_stream_that_fails_raises_nothing() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (Full(), closed):
        log_to(stream)(event())


# Which format. -----------------------------------------------------------------------------------


def test_auto_is_json_in_a_pipe_or_file(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        assert choose_format("auto", stream, {}) == "json"
        assert choose_format("auto", stream, {"JOURNAL_STREAM": "8:1"}) == "json"
        assert choose_format("text", stream, {}) == "text"


def test_auto_is_journald_on_the_stream_that_systemd_connected(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert choose_format("auto", stream, environ) == "journald"
        assert choose_format("json", stream, environ) == "json"


def test_auto_is_text_on_a_terminal() -> None:
    master, slave = pty.openpty()
    with os.fdopen(master), os.fdopen(slave, "w") as stream:
        assert choose_format("auto", stream, {}) == "text"


def test_auto_is_json_on_a_stream_without_a_descriptor() -> None:
    assert choose_format("auto", io.StringIO(), {}) == "json"


# Libraries and the whole. ------------------------------------------------------------------------


def forwarded(level: int, message: str, *arguments: object, error: bool = False) -> LogEvent:
    kept = Events()
    library = logging.Logger("grpc._server")  # noqa: LOG001 - one that this test alone has
    library.addHandler(StandardLoggingForwarder(LogPublisher(kept)))
    library.log(level, message, *arguments, exc_info=error)
    return kept.seen[0]


def test_what_grpc_logs_is_forwarded_with_its_level_and_name() -> None:
    found = json.loads(as_json(forwarded(logging.WARNING, "{%s}", "odd")))
    assert (found["level"], found["logger"], found["message"]) == ("warn", "grpc._server", "{odd}")


@pytest.mark.parametrize(
    ("number", "level"), [(5, "debug"), (20, "info"), (40, "error"), (50, "critical")]
)
def test_levels_of_the_standard_library_are_mapped(number: int, level: str) -> None:
    assert forwarded(number, "x")["log_level"].name == level


def test_a_forwarded_exception_keeps_its_traceback() -> None:
    found: LogEvent = {}
    try:
        fail("deep")
    except ValueError:
        found = forwarded(logging.ERROR, "Exception calling application", error=True)
    assert isinstance(found["log_failure"], Failure)
    text = as_text(found)
    assert "test_a_forwarded_exception_keeps_its_traceback" in text
    assert text.endswith("ValueError: deep\n")


def test_a_record_with_wrong_arguments_is_forwarded_as_it_is() -> None:
    assert "%d GPUs" in as_text(forwarded(logging.WARNING, "%d GPUs", "two"))


PROGRAM = """
import logging, sys, warnings
from twisted.logger import Logger
from sgpud.serve.logging.output import start_logging

Logger("sgpud.early").warn("before it began")
log = start_logging("auto", "info", sys.stderr, {})
Logger("sgpud.app").info("{resource} is there", resource="example.com/gpu")
Logger("sgpud.app").debug("not asked for")
log.set_level("debug")
Logger("sgpud.app").debug("asked for")
logging.getLogger("grpc").error("from grpc")
warnings.warn("old")
"""


@pytest.mark.slow
def test_a_process_logs_its_own_and_its_libraries_messages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    messages = [line["message"] for line in lines]
    assert messages[:4] == [
        "before it began",
        "example.com/gpu is there",
        "asked for",
        "from grpc",
    ]
    assert messages[4].endswith("UserWarning: old")
    assert len(messages) == 5
    assert lines[1]["resource"] == "example.com/gpu"


# Too much. ---------------------------------------------------------------------------------------


def test_one_source_cannot_fill_the_log_nor_hide_the_others() -> None:
    now = [0.0]
    stream = io.StringIO()
    log = LogOutput("text", "info", stream, {}, clock=lambda: now[0])
    for number in range(100_000):
        log(event("GPU {gpu} fails", gpu=number))
    log(event("Stopping"))
    found = stream.getvalue()
    assert found.count("fails") == MAX_EVENTS
    assert "Stopping" in found
    now[0] += EVENTS_WITHIN
    log(event("hello"))
    log(event("GPU {gpu} fails", gpu="again"))
    rest = stream.getvalue()[len(found) :]
    assert f"Suppressed {100_000 - MAX_EVENTS} messages within 10 s, e.g.: GPU 0 fails" in rest
    assert "GPU again fails" in rest


def test_at_level_debug_nothing_is_suppressed() -> None:
    stream = io.StringIO()
    log = LogOutput("text", "debug", stream, {})
    for _ in range(3 * MAX_EVENTS):
        log(event("gave a share"))
    assert stream.getvalue().count("gave a share") == 3 * MAX_EVENTS
