"""The status document on one screen. Pure: a document in, lines out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from attrs import frozen

from sgpud.cli.screens.bars import bars
from sgpud.cli.screens.output import STARTING, unreadable
from sgpud.cli.tables import Cell, CellStyle, painted, table, wrapped
from sgpud.core.text import SHARE_STATES, count_shares, several
from sgpud.core.units import format_size

Document = Mapping[str, Any]
UNKNOWN = "n/a"
_HEAD = ("GPU, HOLDER", "MEMORY", "OF", "BUSY", "SHARES")
_NUMBERS = (1, 2, 3)
_LOOKS = {
    "healthy": CellStyle.GOOD,
    "probation": CellStyle.WARN,
    "suspect": CellStyle.WARN,
    "unhealthy": CellStyle.BAD,
    "unknown": CellStyle.BAD,
}


class Order(Enum):
    """How GPUs and their holders are sorted, the most or the first name first."""

    MEMORY = "memory"
    BUSY = "busy"
    POD = "pod"


@frozen
class StatusStyle:
    """How it is to be shown."""

    columns: int = 0
    """Of the terminal; 0: lines as long as they are."""
    colour: bool = False
    order: Order | None = None
    """Of GPUs and containers; None: as the document has them."""
    only: str = ""
    """Part of the names of the holders and processes to show; GPUs without any are left out."""
    folded: bool = False
    """Whether to leave the holders and processes out."""
    bars: bool = False
    """Whether to draw memory and utilisation, where `columns` are known."""


def status(found: Document, style: StatusStyle | None = None) -> list[str]:
    """The lines."""
    style = style or StatusStyle()
    lines = [
        painted(line, look, colour=style.colour)
        for text, look in _top(found)
        for line in wrapped(text, style.columns)
    ]
    if found["gpus"]:
        rows = [tuple(Cell(text, CellStyle.HEAD, at in _NUMBERS) for at, text in enumerate(_HEAD))]
        gpus: Sequence[Document] = found["gpus"]
        if style.order in _GPU_ORDER:
            gpus = sorted(gpus, key=_GPU_ORDER[style.order])
        for gpu in gpus:
            rows += _gpu(gpu, _listed(found, gpu["uuid"]), style)
        lines += ["", *table(rows, columns=style.columns, colour=style.colour)]
    return lines


def _dra(found: Document) -> Iterator[tuple[str, CellStyle]]:
    """The driver of Dynamic Resource Allocation."""
    # A daemon of before may have none.
    for dra in found.get("dra", ()):
        claims = several(dra["claims"], "claim")
        if dra["published"]:
            text = f"ResourceSlice {dra['slice']} of {dra['driver']}: published, {claims}"
            yield text, CellStyle.GOOD
        if dra["problem"]:
            yield f"{dra['driver']}: {dra['problem']}", CellStyle.BAD
        elif not dra["published"]:
            yield f"{dra['driver']}: no ResourceSlice yet, {claims}", CellStyle.WARN


def _cluster(found: Document) -> Iterator[tuple[str, CellStyle]]:
    """The connection to the API server."""
    for cluster in found.get("cluster", ()):
        for problem in cluster["problems"]:
            yield f"API server: {problem}", CellStyle.WARN


def _top(found: Document) -> Iterator[tuple[str, CellStyle]]:
    """What concerns the whole node."""
    at = datetime.fromtimestamp(found["at"], timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")
    driver = f", driver {found['driver']}" if found["driver"] else ""
    yield f"sgpud {found['version']}: {found['serving']}{driver}, {at}", CellStyle.HEAD
    yield from ((f"Failed: {part}. Restart sgpud", CellStyle.BAD) for part in found["dead"])
    yield from _dra(found)
    yield from _cluster(found)
    configuration = found["configuration"]
    if configuration["problems"]:
        last_good = configuration["in_use"] != "file"
        used = "the last good configuration" if last_good else "the previous configuration"
        yield f"{configuration['file']} is invalid; {used} is in use:", CellStyle.BAD
        yield from ((f"  {problem}", CellStyle.BAD) for problem in configuration["problems"])
    for name, text in (
        ("GPUs", found["probe"]),
        ("Holders may be stale", found["holders"]),
        ("Usage", found["usage"]["problem"] if found["gpus"] else ""),
        ("Not saved", found["unsaved"]),
        ("Not known yet", ", ".join(found["unknown"])),
    ):
        if text:
            yield f"{name}: {text}", CellStyle.WARN
    yield from ((text, CellStyle.BAD) for text in unreadable(found))
    yield from ((f"Note: {note}", CellStyle.WARN) for note in found["notes"])
    for pool in found["pools"]:
        yield _pool(pool)


def _pool(pool: Document) -> tuple[str, CellStyle]:
    live = pool["registration"] == "live"
    state = "registered" if live else pool["registration"]
    problem = f" ({pool['problem']})" if pool["problem"] else ""
    leaving = ", no longer configured" if pool["dropped"] else ""
    total = _total(pool["gpus"])
    text = (
        f"{pool['resource']}: {state}{problem}{leaving}, {count_shares(total)}"
        f" ({total['allocatable']} allocatable)"
    )
    return text, CellStyle.PLAIN if live or pool["dropped"] else CellStyle.BAD


def _total(gpus: Sequence[Document]) -> dict[str, int]:
    """The shares of several GPUs by state, and the allocatable ones."""
    return {key: sum(gpu[key] for gpu in gpus) for key in (*SHARE_STATES, "allocatable")}


def _listed(found: Document, uuid: str) -> list[tuple[Document, Document]]:
    """The pools that list a GPU, each with what it lists."""
    return [(pool, gpu) for pool in found["pools"] for gpu in pool["gpus"] if gpu["uuid"] == uuid]


def _gpu(
    gpu: Document, listed: list[tuple[Document, Document]], style: StatusStyle
) -> Iterator[tuple[Cell, ...]]:
    users = _users(gpu, style)
    if style.only and not users:
        return
    mig = f" MIG {gpu['mig']}" if gpu["mig"] else ""
    name = f"{gpu['index']}{mig} {gpu['product']}" if gpu["product"] else "missing"
    used = gpu["used"]
    share = f" {used * 100 // gpu['memory']}%" if used is not None and gpu["memory"] else ""
    yield (
        Cell(name, CellStyle.HEAD),
        Cell(UNKNOWN if used is None else _size(used) + share, right=True),
        Cell(_size(gpu["memory"]) if gpu["memory"] else UNKNOWN, right=True),
        Cell(_percent(gpu["utilisation"]), right=True),
        Cell(count_shares(_total([each for _, each in listed])) if listed else "not shared"),
    )
    drawn = bars(gpu, style.columns) if style.bars else ""
    if drawn:
        yield (Cell(drawn),)
    cordoned = ", cordoned" if gpu["cordoned"] else ""
    reason = f": {gpu['reason']}" if gpu["reason"] else ""
    look = _LOOKS[gpu["health"]]
    if look is CellStyle.GOOD:
        look = CellStyle.WARN if cordoned else CellStyle.FAINT
    yield (Cell(f"  {gpu['uuid']}: {gpu['health']}{cordoned}{reason}", look),)
    if gpu["enforcement"] != "none" or any(one["granted"] for one in gpu["containers"]):
        text = f"  memory limits: {gpu['enforcement']} ({gpu['enforcement_reason']})"
        yield (Cell(text, CellStyle.WARN if gpu["enforcement"] == "none" else CellStyle.FAINT),)
    for text in _remarks(gpu, listed):
        yield (Cell(f"  {text}", CellStyle.WARN),)
    if not style.folded:
        yield from users


def _users(gpu: Document, style: StatusStyle) -> list[tuple[Cell, ...]]:
    """The rows of who holds or uses a GPU, sorted and filtered."""
    holders = zip(gpu["containers"], map(_container, gpu["containers"]), strict=True)
    others = [one for one in gpu["processes"] if one["owner"] != "holder"]
    rows = [*holders, *zip(others, _others(others), strict=True)]
    rows = [(one, cells) for one, cells in rows if style.only in cells[0].text]
    if style.order is Order.MEMORY:
        rows.sort(key=lambda row: -(row[0]["used"] or 0))
    elif style.order is Order.BUSY:
        rows.sort(key=lambda row: -(row[0]["utilisation"] or 0))
    elif style.order is Order.POD:
        rows.sort(key=lambda row: row[1][0].text)
    return [cells for _, cells in rows]


def _remarks(gpu: Document, listed: list[tuple[Document, Document]]) -> Iterator[str]:
    """What a person should know of a GPU."""
    if gpu["advice"]:
        yield f"to do: {gpu['advice']}"
    for pool, each in listed:
        if len(listed) > 1:
            yield f"{pool['resource']}: {count_shares(each)}"
        if each["withheld"]:
            yield f"withheld: {each['reason']}"
        if each["surplus"]:
            yield f"{each['surplus']} more held than configured"
    if gpu["used"] is not None and not gpu["fresh"]:
        yield f"memory as of {gpu['measured_ago']:.0f} s ago"
    # Whose a process is may be unknown for one reason, of many processes.
    for problem in dict.fromkeys(one["problem"] for one in gpu["processes"] if one["problem"]):
        yield f"owner of a process is unknown: {problem}"
    if gpu["use_problem"] and gpu["containers"]:
        yield f"use per container is unknown: {gpu['use_problem']}"


def _container(one: Document) -> tuple[Cell, ...]:
    pod = f"{one['namespace']}/{one['pod']}" if one["pod"] else one["uid"]
    name = "/".join(part for part in (pod, one["container"]) if part)
    over, used = one["over"], one["used"]
    shares = f"{one['shares']}, over by {_size(over)}" if over else str(one["shares"])
    if one["over_for"] is not None:
        shares += f" for {one['over_for']:.0f} s"
    return (
        Cell(f"  {name or STARTING}"),
        Cell(UNKNOWN if used is None else _size(used), right=True),
        Cell("" if one["granted"] is None else _size(one["granted"]), right=True),
        Cell(_percent(one["utilisation"]), right=True),
        Cell(shares, CellStyle.BAD if over else CellStyle.PLAIN),
    )


def _others(processes: Sequence[Document]) -> Iterator[tuple[Cell, ...]]:
    """The rows of processes that belong to no holder."""
    for one in processes:
        pod = f"{one['namespace']}/{one['pod']}" if one["pod"] else one["uid"]
        remark = {
            "shareless": "holds no share",
            "outside": "not in a pod",
            "unknown": "unknown",
        }[one["owner"]]
        where = " in pod " + "/".join(part for part in (pod, one["container"]) if part)
        name = f"  {one['command'] or 'process'} {one['pid']}{where if pod else ''}"
        used = one["used"]
        yield (
            Cell(name, CellStyle.WARN),
            Cell(UNKNOWN if used is None else _size(used), right=True),
            Cell(""),
            Cell(_percent(one["utilisation"]), right=True),
            Cell(remark, CellStyle.WARN),
        )


def _size(size: int) -> str:
    return format_size(size) if size else "0 B"


def _percent(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value}%"


_GPU_ORDER: Mapping[Order | None, Callable[[Document], tuple[int, int]]] = {
    Order.MEMORY: lambda gpu: (-(gpu["used"] or 0), gpu["index"]),
    Order.BUSY: lambda gpu: (-(gpu["utilisation"] or 0), gpu["index"]),
}
