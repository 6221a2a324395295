"""A list of pods as CSV: a trace.

The first row names the columns: `arrive` and `duration` or `depart`, then where wanted `name`,
`shares`, `memory` and `resource`. Times are seconds, or have a unit (90s, 15m, 2h); sizes always
have one (11GiB). An empty field is one that is left out. The rows can be in any order.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sgpud.cli.simulate.asked import (
    MOST_PODS,
    MOST_PROBLEMS,
    MOST_SHARES,
    AskedPod,
    PodList,
    TimeError,
    seconds,
)
from sgpud.config.problems import ConfigError, Problem
from sgpud.config.schema.formats import resource_name
from sgpud.config.schema.kinds import show
from sgpud.core.units import SizeError, parse_size

V = TypeVar("V")

COLUMNS = ("arrive", "duration", "depart", "name", "shares", "memory", "resource")
MOST_BYTES = 256 * 2**20
_DIGITS = re.compile("[0-9]{1,9}", re.ASCII)


class _WrongError(ValueError):
    """(column, what is wrong) with a field."""


def load_trace(path: Path) -> PodList:
    """Read a trace; ConfigError with every problem, each with file, line and column."""
    try:
        with path.open("rb") as opened:
            raw = opened.read(MOST_BYTES + 1)
    except OSError as error:
        problem = Problem(str(path), 0, "", f"cannot be read: {error.strerror}")
        raise ConfigError([problem]) from error
    if len(raw) > MOST_BYTES:
        problem = Problem(str(path), 0, "", f"is over {MOST_BYTES} bytes long")
        raise ConfigError([problem])
    return parse_trace(raw, str(path))


def parse_trace(raw: bytes, file: str) -> PodList:
    """The list that a text is; ConfigError as `load_trace`."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, "", "is not UTF-8, save it as UTF-8")]) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    pods: list[AskedPod] = []
    problems: list[Problem] = []
    try:
        columns = _columns(next(reader, []), file)
        for number, row in enumerate(filter(None, reader), 1):
            try:
                pods.append(_pod(columns, row, number, reader.line_num))
            except _WrongError as error:
                column, what = error.args
                problems.append(Problem(file, reader.line_num, column, what))
            if len(problems) == MOST_PROBLEMS:
                break
            if number > MOST_PODS:
                problems.append(Problem(file, reader.line_num, "", f"more than {MOST_PODS} rows"))
                break
    except csv.Error as error:
        problems.append(Problem(file, reader.line_num, "", f"is no CSV: {error}"))
    if problems:
        raise ConfigError(problems)
    pods.sort(key=lambda pod: pod.at)
    return PodList(file, tuple(pods))


def _columns(row: list[str], file: str) -> list[str]:
    columns = [name.strip() for name in row]
    problems = [
        *(f"{show(name)} is an unknown column" for name in columns if name not in COLUMNS),
        *(f"{name} comes twice" for name in COLUMNS if columns.count(name) > 1),
    ]
    if "arrive" not in columns:
        problems.append("the column arrive is missing")
    if ("duration" in columns) == ("depart" in columns):
        problems.append("one column of duration and depart is needed, and not both")
    if problems:
        known = f"; the first row names the columns, which are {', '.join(COLUMNS)}"
        raise ConfigError([Problem(file, 1, "", problem + known) for problem in problems])
    return columns


def _pod(columns: list[str], row: list[str], number: int, line: int) -> AskedPod:
    if len(row) != len(columns):
        raise _WrongError("", f"has {len(row)} fields, the first row names {len(columns)}")
    given = {name: text.strip() for name, text in zip(columns, row, strict=True) if text.strip()}
    at = _read(given, "arrive", seconds)
    if at is None:
        raise _WrongError("arrive", "is missing, write seconds")
    duration, depart = _read(given, "duration", seconds), _read(given, "depart", seconds)
    if depart is not None:
        if depart < at:
            raise _WrongError("depart", f"{depart:g} s is before the pod arrives, at {at:g} s")
        duration = round(depart - at, 3)
    return AskedPod(
        line,
        _read(given, "name", _printable) or f"pod-{number}",
        at,
        _read(given, "shares", _whole),
        _read(given, "resource", _resource),
        duration,
        _read(given, "memory", parse_size),
    )


def _read(given: Mapping[str, str], column: str, parse: Callable[[str], V]) -> V | None:
    text = given.get(column)
    if text is None:
        return None
    try:
        return parse(text)
    except SizeError as error:
        raise _WrongError(column, f"{show(text)} is no size: {error.reason}") from error
    except TimeError as error:
        raise _WrongError(column, f"{show(text)} {error}") from error


def _whole(text: str) -> int:
    if not (_DIGITS.fullmatch(text) and 1 <= int(text) <= MOST_SHARES):
        raise _WrongError("shares", f"{show(text)} is no whole number from 1 to {MOST_SHARES}")
    return int(text)


def _resource(text: str) -> str:
    wrong = resource_name(text)
    if wrong:
        raise _WrongError("resource", f"{show(text)} {wrong}")
    return text


def _printable(text: str) -> str:
    if not text.isprintable():
        raise _WrongError("name", f"{show(text)} is no name")
    return text
