"""The script in a file of fake GPUs: what happens to the fake GPUs, and when.

[[event]]
at = "5s"                 # after the start
gpu = 0                   # which [[gpu]], counted over all of them from 0
# gi = 1                  # one of its MIG instances, numbered from 1 (xid, ecc, unplug, plug, used)
# ci = 0

and one of:

xid = 79                  # the driver reports an XID
ecc = true                # a double-bit ECC error
lost = true               # NVML says of this GPU that it is lost
hang = true               # a call to this GPU does not come back
back = true               # neither lost nor hanging any more, and no recovery action
unplug = true             # it is gone
plug = true               # it is there again
recovery = 1              # NVML's recovery action, 0 to 7
used = "30GiB"            # memory in use from then on, beside that of processes
process = 4711            # this process id is on the GPU from then on, with
memory = "2GiB"           # so much of its memory, and
utilisation = 40          # so many percent of its time; not on MIG
ended = 4711              # it no longer is
driver = "gone"           # or "back": of all GPUs, so without gpu
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen

from sgpud.config.problems import Problem
from sgpud.config.schema.kinds import Boolean, Choice, Integer, Key, ListOf, Table, Text
from sgpud.config.source import ConfigSource
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.units import DurationError, SizeError, parse_duration, parse_size

MOST_EVENTS = 1000
"""Events of one file, at most."""
_FLAGS = ("ecc", "lost", "hang", "back", "unplug", "plug")
_ACTIONS = ("xid", *_FLAGS, "recovery", "used", "process", "ended", "driver")
_OF_INSTANCES = ("xid", "ecc", "unplug", "plug", "used", "process", "ended")
_OF_WHAT_RUNS = ("used", "process", "ended")
"""What happens where processes run: in the instances of a GPU that is cut into some."""
_OF_PROCESSES = ("memory", "utilisation")
_LAST_XID = 2**31 - 1
_LAST_ACTION = 7
_LAST_PID = 2**22


def size_fault(text: str) -> str | None:
    """The rule for a size of memory."""
    try:
        parse_size(text)
    except SizeError as error:
        return f"is no size of memory: {error.reason}"
    return None


def _duration(text: str) -> str | None:
    try:
        parse_duration(text)
    except DurationError as error:
        return f"is no time: {error.reason}"
    return None


EVENTS = ListOf(
    Table(
        (
            Key("at", Text('a time such as "5s"', _duration), required=True),
            Key("gpu", Integer(0, 4095)),
            Key("gi", Integer(0, 255)),
            Key("ci", Integer(0, 255)),
            Key("xid", Integer(1, _LAST_XID)),
            *(Key(name, Boolean()) for name in _FLAGS),
            Key("recovery", Integer(0, _LAST_ACTION)),
            Key("used", Text('a size such as "30GiB"', size_fault)),
            Key("process", Integer(1, _LAST_PID)),
            Key("memory", Text('a size such as "2GiB"', size_fault)),
            Key("utilisation", Integer(0, 100)),
            Key("ended", Integer(1, _LAST_PID)),
            Key("driver", Choice(("gone", "back"))),
        ),
        "a table [[event]]",
    ),
    "tables, each below a line [[event]]",
    MOST_EVENTS,
)
"""The kind of `event` in a file of fake GPUs."""


@frozen
class ScriptedEvent:
    """One event of a script."""

    at: float
    """Seconds after the start."""
    action: str
    """The key that says what happens: one of those in this module's docstring."""
    gpu: int = -1
    """The index of the GPU; -1: the driver, and so all."""
    gi: int | None = None
    ci: int | None = None
    number: int = 0
    """The XID, the recovery action, the bytes in use, or the process id."""
    word: str = ""
    """`gone` or `back`, for the driver."""
    memory: int = 0
    """Bytes that the process uses."""
    utilisation: int | None = None
    """Percent that it is busy."""


def happenings(source: ConfigSource) -> tuple[ScriptedEvent, ...]:
    """The events of a file without a problem, in the order of their times."""
    found = [_happening(entry) for entry in source.document.get("event", ())]
    return tuple(sorted(found, key=lambda happening: happening.at))


def script_problems(source: ConfigSource, gpus: Sequence[Gpu]) -> Iterator[Problem]:
    """What makes no sense in a script for these GPUs, although each value is of its kind."""
    for number, entry in enumerate(source.document.get("event", ())):
        for key, text in _senseless(entry, gpus):
            line = source.line(("event", number, key))
            yield Problem(source.file, line, f"event.{key}", text)


def _senseless(entry: dict[str, Any], gpus: Sequence[Gpu]) -> Iterator[tuple[str, str]]:
    actions = [name for name in _ACTIONS if name in entry]
    for name in _FLAGS:
        if entry.get(name) is False:
            yield name, "false is nothing that happens: leave it out"
    if len(actions) != 1:
        others = f", not {' and '.join(actions)}" if actions else ""
        yield (actions or ["at"])[-1], f"write one of {', '.join(_ACTIONS)} in each event{others}"
        return
    (action,) = actions
    for key in _OF_PROCESSES if action != "process" else ():
        if key in entry:
            yield key, "is of a process: write process and its id too"
    for key in ("gpu", "gi", "ci"):
        if action == "driver" and key in entry:
            yield key, "has no meaning for the driver, which is all GPUs': leave it out"
    if action != "driver":
        yield from _nowhere(action, entry, gpus)


def _nowhere(action: str, entry: dict[str, Any], gpus: Sequence[Gpu]) -> Iterator[tuple[str, str]]:
    parts = [gpu for gpu in gpus if gpu.index == entry.get("gpu")]
    if "gpu" not in entry:
        yield action, "of which GPU is not said: write gpu = 0 for the first"
    elif not parts:
        count = len({gpu.index for gpu in gpus})
        yield "gpu", f"there are {count} GPUs, counted from 0"
    elif "gi" in entry and action not in _OF_INSTANCES:
        yield "gi", f"{action} is always of a whole GPU: leave gi and ci out"
    elif "ci" in entry and "gi" not in entry:
        yield "ci", "needs gi too"
    elif "gi" in entry and not any(_is_at(gpu, entry["gi"], entry.get("ci")) for gpu in parts):
        known = ", ".join(str(gpu.mig.gi) for gpu in parts if gpu.mig)
        has = f"has the instances {known}, each with ci = 0" if known else "has no MIG instances"
        yield "gi", f"GPU {entry['gpu']} {has}"
    elif action in _OF_WHAT_RUNS:
        yield from _not_there(action, entry, parts)


def _not_there(
    action: str, entry: dict[str, Any], parts: Sequence[Gpu]
) -> Iterator[tuple[str, str]]:
    if parts[0].mig and "gi" not in entry:
        yield action, "a GPU with MIG instances has memory in use in those: write gi too"
        return
    gpu = next(part for part in parts if _is_at(part, entry.get("gi"), entry.get("ci")))
    for key in ("used", "memory"):
        if parse_size(entry.get(key, "0")) > gpu.memory - gpu.reserved:
            yield key, f"is more than the {gpu.memory - gpu.reserved} bytes that the GPU has"
    if gpu.mig and "utilisation" in entry:
        yield "utilisation", "NVML tells none on MIG: leave it out"


def _is_at(gpu: Gpu, gi: int | None, ci: int | None) -> bool:
    if gpu.mig is None or gi is None:
        return gi is None
    return gpu.mig.gi == gi and ci in (None, gpu.mig.ci)


def _happening(entry: dict[str, Any]) -> ScriptedEvent:
    action = next(name for name in _ACTIONS if name in entry)
    value = entry[action]
    number = value if action in ("xid", "recovery", "process", "ended") else 0
    return ScriptedEvent(
        at=parse_duration(entry["at"]),
        action=action,
        gpu=entry.get("gpu", -1),
        gi=entry.get("gi"),
        ci=entry.get("ci"),
        number=parse_size(value) if action == "used" else number,
        word=value if action == "driver" else "",
        memory=parse_size(entry.get("memory", "0")),
        utilisation=entry.get("utilisation"),
    )
