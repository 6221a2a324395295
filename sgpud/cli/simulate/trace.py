"""A list of pods as CSV: a trace.

The first row names the columns: `arrive` and `duration` or `depart`, then where wanted `name`,
`shares`, `gpus`, `memory`, `resource` and `products` (A|B). Times are seconds or dates, or have a
unit (90s, 15m, 2h); sizes always have one (11GiB). An empty field is one that is left out. The rows
can be in any order.

A file of other people's is read with `columns` (their names of ours; what else it has is ignored)
and `scale` (what its times, shares and sizes are divided by).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from attrs import evolve, field, frozen

from sgpud.cli.simulate.asked import (
    LATEST_DATE,
    MOST_GPUS,
    MOST_PODS,
    MOST_PROBLEMS,
    MOST_SHARES,
    AskedContainer,
    AskedPod,
    PodList,
    TimeError,
    seconds,
)
from sgpud.config.problems import ConfigError, Problem
from sgpud.config.schema.formats import resource_name
from sgpud.config.schema.kinds import show
from sgpud.core.text import several
from sgpud.core.units import SizeError, parse_size

V = TypeVar("V")

COLUMNS = (
    "arrive",
    "duration",
    "depart",
    "name",
    "shares",
    "gpus",
    "memory",
    "resource",
    "products",
)
MOST_BYTES = 256 * 2**20
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{0,9})?(?:[eE]\+?[0-9]{1,2})?", re.ASCII)


ALIASES = {"arrival": "arrive", "departure": "depart", "pod": "name", "id": "name"}
SCALES = ("times", "shares", "memory")
EPOCH = 1e8
"""Seconds: an earliest arrival beyond it is a date, and the simulation starts there."""
FIRST_LINES = 3
"""Lines that a message about several rows names."""


@frozen
class TraceOptions:
    """How a file is to be read."""

    columns: Mapping[str, str] = field(factory=dict)
    """The file's names by ours."""
    scale: Mapping[str, float] = field(factory=dict)
    """What times, shares and memory are divided by."""
    start: float = 0.0
    end: float = math.inf
    """Only arrivals in this time are played, in seconds from the first one."""


class _WrongError(ValueError):
    """(column, value, what is wrong) with a field."""


class _NoShareError(Exception):
    """A row that asks for 0 shares."""


def load_trace(path: Path, options: TraceOptions | None = None) -> PodList:
    """Read a trace; ConfigError with every kind of problem, each with file, lines and column."""
    try:
        with path.open("rb") as opened:
            raw = opened.read(MOST_BYTES + 1)
    except OSError as error:
        problem = Problem(str(path), 0, "", f"cannot be read: {error.strerror}")
        raise ConfigError([problem]) from error
    if len(raw) > MOST_BYTES:
        problem = Problem(str(path), 0, "", f"is larger than {MOST_BYTES} bytes")
        raise ConfigError([problem])
    return parse_trace(raw, str(path), options)


def parse_trace(raw: bytes, file: str, options: TraceOptions | None = None) -> PodList:
    """The list that a text is; ConfigError as `load_trace`."""
    options = options or TraceOptions()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, line, "", "is not UTF-8, save it as UTF-8")]) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    pods: list[AskedPod] = []
    wrong: dict[tuple[str, str], list[tuple[int, str]]] = {}
    problems: list[Problem] = []
    without = 0
    try:
        columns = _columns(next(reader, []), file, options)
        for number, row in enumerate(filter(None, reader), 1):
            try:
                pods.append(_pod(columns, row, number, reader.line_num, options))
            except _WrongError as error:
                column, value, what = error.args
                wrong.setdefault((column, what), []).append((reader.line_num, value))
            except _NoShareError:
                without += 1
            if number > MOST_PODS:
                problems.append(Problem(file, reader.line_num, "", f"more than {MOST_PODS} rows"))
                break
    except csv.Error as error:
        problems.append(Problem(file, reader.line_num, "", f"is not CSV: {error}"))
    problems += [_problem(file, *kind, found) for kind, found in wrong.items()]
    if problems:
        raise ConfigError(problems[:MOST_PROBLEMS])
    notes = [f"{several(without, 'row')} without a share skipped"] if without else []
    return PodList(file, _window(pods, options), tuple(notes))


def _problem(file: str, column: str, what: str, found: list[tuple[int, str]]) -> Problem:
    """One problem for all the rows of its kind: the first ones by line, the rest as a number."""
    (line, value), *others = found
    text = f"{value} {what}" if value else what
    if others:
        named = ", ".join(str(number) for number, _ in others[: FIRST_LINES - 1])
        rest = len(others) - len(others[: FIRST_LINES - 1])
        text += f"; likewise line {named}" + (f" and {several(rest, 'more row')}" if rest else "")
    return Problem(file, line, column, text)


def _window(pods: list[AskedPod], options: TraceOptions) -> tuple[AskedPod, ...]:
    """The pods in the order of their arrival, from the wanted time only, counted from its start."""
    pods.sort(key=lambda pod: pod.at)
    first = pods[0].at if pods and pods[0].at > EPOCH else 0.0
    start = first + options.start
    return tuple(
        evolve(pod, at=round(pod.at - start, 3))
        for pod in pods
        if start <= pod.at < first + options.end
    )


def _columns(row: list[str], file: str, options: TraceOptions) -> list[str]:
    """Our names of the file's columns; empty for one that is ignored."""
    given = [name.strip() for name in row]
    ours = {theirs: name for name, theirs in options.columns.items()}
    # A file that somebody else wrote has columns that nobody asked for.
    unknown = "" if ours else None
    columns = [
        ours.get(name, name if name in COLUMNS and name not in options.columns else unknown)
        for name in given
    ]
    problems = [
        f"{show(name)} is an unknown column"
        for name, column in zip(given, columns, strict=True)
        if column is None
    ]
    problems += [f"no such column: {show(name)}" for name in ours if name not in given]
    problems += [f"{name} comes twice" for name in COLUMNS if columns.count(name) > 1]
    if "arrive" not in columns:
        problems.append("the column arrive is missing")
    if ("duration" in columns) == ("depart" in columns):
        problems.append("one column of duration and depart is needed, and not both")
    if problems:
        known = (
            f"; the first row names the columns, which are {', '.join(COLUMNS)}; "
            "--columns maps other names"
        )
        raise ConfigError([Problem(file, 1, "", problem + known) for problem in problems])
    return [column or "" for column in columns]


def _pod(
    columns: list[str], row: list[str], number: int, line: int, options: TraceOptions
) -> AskedPod:
    if len(row) != len(columns):
        raise _WrongError("", "", f"has {len(row)} fields, the first row names {len(columns)}")
    pairs = zip(columns, row, strict=True)
    given = {name: text.strip() for name, text in pairs if name and text.strip()}
    times = options.scale.get("times", 1.0)
    at = _read(given, "arrive", lambda text: seconds(text, LATEST_DATE))
    if at is None:
        raise _WrongError("arrive", "", "is missing, write seconds")
    duration = _read(given, "duration", seconds)
    depart = _read(given, "depart", lambda text: seconds(text, LATEST_DATE))
    if depart is not None:
        if depart < at:
            raise _WrongError("depart", "", "is before the pod arrives")
        duration = depart - at
    memory = _read(given, "memory", parse_size)
    container = AskedContainer(
        _read(given, "shares", lambda text: _whole(text, options.scale.get("shares", 1.0))),
        _read(given, "resource", _resource),
        None if memory is None else math.ceil(memory / options.scale.get("memory", 1.0)),
        _read(given, "gpus", _gpus),
    )
    return AskedPod(
        line,
        _read(given, "name", _printable) or f"pod-{number}",
        round(at / times, 3),
        None if duration is None else round(duration / times, 3),
        (container,),
        _read(given, "products", _products) or (),
    )


def _read(given: Mapping[str, str], column: str, parse: Callable[[str], V]) -> V | None:
    text = given.get(column)
    if text is None:
        return None
    try:
        return parse(text)
    except SizeError as error:
        raise _WrongError(column, show(text), f"is not a size: {error.reason}") from error
    except TimeError as error:
        raise _WrongError(column, show(text), str(error)) from error


def _whole(text: str, scale: float) -> int:
    """Shares: a whole number however it is written (46, 46.0, 1e3), rounded up after scaling."""
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if value == 0:
        raise _NoShareError
    scaled = value / scale
    if math.isnan(value) or not 0 < scaled <= MOST_SHARES or (scale == 1 and value % 1):
        raise _WrongError("shares", show(text), f"is not a whole number from 1 to {MOST_SHARES}")
    return math.ceil(scaled)


def _gpus(text: str) -> int:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if value == 0:
        raise _NoShareError
    if not 1 <= value <= MOST_GPUS or value % 1:
        raise _WrongError("gpus", show(text), f"is not a whole number from 1 to {MOST_GPUS}")
    return int(value)


def _products(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, _printable(text, "products").split("|"))))


def _resource(text: str) -> str:
    wrong = resource_name(text)
    if wrong:
        raise _WrongError("resource", show(text), wrong)
    return text


def _printable(text: str, column: str = "name") -> str:
    if not text.isprintable():
        raise _WrongError(column, show(text), "is not a name")
    return text


def column_map(text: str) -> dict[str, str]:
    """`name=id,arrive=creation_time` to the file's names by ours; ValueError for anything else.

    Either side may be ours: people write the pair in both orders.
    """
    found: dict[str, str] = {}
    for pair in text.split(","):
        left, equals, right = (part.strip() for part in pair.partition("="))
        if not equals or not left or not right:
            raise ValueError(text)
        ours = ALIASES.get(left, left)
        if ours in COLUMNS and right not in COLUMNS:
            found[ours] = right
        elif right in COLUMNS and left not in COLUMNS:
            found[right] = left
        else:
            raise ValueError(text)
    return found


def scale_map(text: str) -> dict[str, float]:
    """`times=1000,shares=10` to what is divided by what; ValueError for anything else."""
    found: dict[str, float] = {}
    for pair in text.split(","):
        name, equals, number = (part.strip() for part in pair.partition("="))
        value = float(number) if equals else 0.0
        if name not in SCALES or not 0 < value < math.inf:
            raise ValueError(text)
        found[name] = value
    return found
