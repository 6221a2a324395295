"""The script in a file of fake GPUs: what happens to them, and when.

[[event]]
at = "5s"                 # after the start
gpu = 0                   # which [[gpu]], counted from 0 over all of them
# gi = 1                  # one of its MIG instances, numbered from 1 (xid, ecc, unplug, plug, used)
# ci = 0

and one of:

xid = 79                  # the driver reports an XID
ecc = true                # a double-bit ECC error
lost = true               # NVML reports this GPU as lost
hang = true               # calls to this GPU hang
back = true               # no longer lost nor hanging, no recovery action
unplug = true             # the GPU is removed
plug = true               # it is back
recovery = 1              # NVML's recovery action, 0 to 7
used = "30GiB"            # memory in use from then on, besides that of processes
process = 4711            # this process uses the GPU from then on:
memory = "2GiB"           # this much memory, and
utilisation = 40          # this many percent of its time; not on MIG
ended = 4711              # this process has ended
driver = "gone"           # or "back": for all GPUs, so without gpu
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
"""The most events in one file."""
_FLAGS = ("ecc", "lost", "hang", "back", "unplug", "plug")
_ACTIONS = ("xid", *_FLAGS, "recovery", "used", "process", "ended", "driver")
_OF_INSTANCES = ("xid", "ecc", "unplug", "plug", "used", "process", "ended")
_OF_WHAT_RUNS = ("used", "process", "ended")
"""Events where processes run: in the MIG instances of a GPU that has any."""
_OF_PROCESSES = ("memory", "utilisation")
_LAST_XID = 2**31 - 1
_LAST_ACTION = 7
_LAST_PID = 2**22


def size_fault(text: str) -> str | None:
    """The rule for a size of memory."""
    try:
        parse_size(text)
    except SizeError as error:
        return f"is not a size: {error.reason}"
    return None


def _duration(text: str) -> str | None:
    try:
        parse_duration(text)
    except DurationError as error:
        return f"is not a duration: {error.reason}"
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
    """The key of the event: one of those in this module's docstring."""
    gpu: int = -1
    """The index of the GPU; -1: the driver, and so all."""
    gi: int | None = None
    ci: int | None = None
    number: int = 0
    """The XID, recovery action, bytes in use or process id."""
    state: str = ""
    """`gone` or `back`, for the driver."""
    memory: int = 0
    """Bytes used by the process."""
    utilisation: int | None = None
    """Percent of the GPU's time."""


def scripted_events(source: ConfigSource) -> tuple[ScriptedEvent, ...]:
    """The events of a file without a problem, in the order of their times."""
    found = [_scripted_event(entry) for entry in source.document.get("event", ())]
    return tuple(sorted(found, key=lambda event: event.at))


def script_problems(source: ConfigSource, gpus: Sequence[Gpu]) -> Iterator[Problem]:
    """What is inconsistent in a script for these GPUs, although each value is valid."""
    for number, entry in enumerate(source.document.get("event", ())):
        for key, text in _inconsistent(entry, gpus):
            line = source.line(("event", number, key))
            yield Problem(source.file, line, f"event.{key}", text)


def _inconsistent(entry: dict[str, Any], gpus: Sequence[Gpu]) -> Iterator[tuple[str, str]]:
    actions = [name for name in _ACTIONS if name in entry]
    for name in _FLAGS:
        if entry.get(name) is False:
            yield name, "cannot be false: leave it out"
    if len(actions) != 1:
        others = f", not {' and '.join(actions)}" if actions else ""
        yield (actions or ["at"])[-1], f"each event needs one of {', '.join(_ACTIONS)}{others}"
        return
    (action,) = actions
    for key in _OF_PROCESSES if action != "process" else ():
        if key in entry:
            yield key, "needs process and its id"
    for key in ("gpu", "gi", "ci"):
        if action == "driver" and key in entry:
            yield key, "does not apply to the driver, which serves all GPUs: leave it out"
    if action != "driver":
        yield from _misplaced(action, entry, gpus)


def _misplaced(
    action: str, entry: dict[str, Any], gpus: Sequence[Gpu]
) -> Iterator[tuple[str, str]]:
    parts = [gpu for gpu in gpus if gpu.index == entry.get("gpu")]
    if "gpu" not in entry:
        yield action, "needs gpu, e.g. gpu = 0 for the first"
    elif not parts:
        count = len({gpu.index for gpu in gpus})
        yield "gpu", f"there are {count} GPUs, counted from 0"
    elif "gi" in entry and action not in _OF_INSTANCES:
        yield "gi", f"{action} applies to a whole GPU: leave gi and ci out"
    elif "ci" in entry and "gi" not in entry:
        yield "ci", "needs gi"
    elif "gi" in entry and not any(_is_at(gpu, entry["gi"], entry.get("ci")) for gpu in parts):
        known = ", ".join(str(gpu.mig.gi) for gpu in parts if gpu.mig)
        has = f"has the instances {known}, each with ci = 0" if known else "has no MIG instances"
        yield "gi", f"GPU {entry['gpu']} {has}"
    elif action in _OF_WHAT_RUNS:
        yield from _out_of_range(action, entry, parts)


def _out_of_range(
    action: str, entry: dict[str, Any], parts: Sequence[Gpu]
) -> Iterator[tuple[str, str]]:
    if parts[0].mig and "gi" not in entry:
        yield action, "needs gi: the memory of a GPU with MIG instances is used in those"
        return
    gpu = next(part for part in parts if _is_at(part, entry.get("gi"), entry.get("ci")))
    for key in ("used", "memory"):
        if parse_size(entry.get(key, "0")) > (gpu.memory or 0) - gpu.reserved:
            yield key, f"is more than the {(gpu.memory or 0) - gpu.reserved} bytes that the GPU has"
    if gpu.mig and "utilisation" in entry:
        yield "utilisation", "is not reported for MIG instances: leave it out"


def _is_at(gpu: Gpu, gi: int | None, ci: int | None) -> bool:
    if gpu.mig is None or gi is None:
        return gi is None
    return gpu.mig.gi == gi and ci in (None, gpu.mig.ci)


def _scripted_event(entry: dict[str, Any]) -> ScriptedEvent:
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
        state=value if action == "driver" else "",
        memory=parse_size(entry.get("memory", "0")),
        utilisation=entry.get("utilisation"),
    )
