"""What a list of pods says, before it is known how the GPUs are shared."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime, timezone

from attrs import frozen

from sgpud.cli.simulate.engine.simulation import never_fits
from sgpud.cli.simulate.engine.values import PodRequest
from sgpud.config.problems import ConfigError, Problem
from sgpud.core.planning.plan import Plan
from sgpud.core.units import DurationError, format_size, parse_duration

MOST_PODS = 1_000_000
MOST_PROBLEMS = 100
"""Problems that are reported at once."""
MOST_SHARES = 1_000_000
LONGEST = 1e9
"""Seconds; some 30 years."""
LATEST_DATE = 1e11
"""Seconds since the epoch."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{0,18})?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]")


@frozen
class AskedPod:
    """One pod of a list."""

    line: int
    name: str
    at: float
    """Seconds."""
    shares: int | None = None
    """None: one; where shares stand for memory, as many as hold its memory."""
    resource: str | None = None
    """None: the one that `[sharing]` names."""
    duration: float | None = None
    """Seconds; None: for ever."""
    memory: int | None = None
    """Bytes that it uses on each GPU it gets; None: what its shares stand for."""


@frozen
class PodList:
    """A list of pods and the file it comes from."""

    file: str
    pods: tuple[AskedPod, ...]
    notes: tuple[str, ...] = ()
    """What was left out of it."""


class TimeError(ValueError):
    """A value that is not a time in seconds; its text goes on after the value."""


def seconds(value: object, longest: float = LONGEST) -> float:
    """Seconds of 90, 1.5, 1e3, "90", "90s", "15m", "2h"; TimeError for anything else.

    With `longest` of LATEST_DATE a date such as 2026-11-29T09:00:00Z is taken, too, as seconds
    since the epoch.
    """
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        if value.startswith("-"):
            raise TimeError("is negative, write when it is after the start")
        if longest == LATEST_DATE and _DATE.match(value):
            return _date(value)
        try:
            value = parse_duration(value)
        except DurationError as error:
            raise TimeError(f"is not a time: {error.reason}; or seconds as a number") from error
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TimeError('is not a time, write seconds such as 90, or a text such as "15m"')
    found = float(value)
    if math.isnan(found):
        raise TimeError("is not a number, write seconds")
    if found < 0:
        raise TimeError("is negative, write 0 or more seconds")
    if found > longest:
        raise TimeError(f"is too long, write {longest:.0f} seconds at most")
    return round(found, 3)


def _date(text: str) -> float:
    try:
        # Python 3.10 takes no Z.
        found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise TimeError("is not a date such as 2026-11-29T09:00:00Z") from error
    return found.replace(tzinfo=found.tzinfo or timezone.utc).timestamp()


def requests(listed: PodList, plan: Plan, resource: str) -> list[PodRequest]:
    """The list as requests for nodes with this plan; `resource` is the default one.

    ConfigError with the line of every pod that no node could ever place, each kind once.
    """
    found: list[PodRequest] = []
    known: dict[tuple[str, int | None, int | None], tuple[int, str]] = {}
    problems = []
    for pod in listed.pods:
        wanted = pod.resource or resource
        kind = (wanted, pod.shares, pod.memory)
        if kind not in known:
            shares = _shares(pod, plan, wanted)
            key, wrong = _wrong(plan, wanted, shares, pod.memory)
            known[kind] = (shares, wrong)
            if wrong:
                problems.append(Problem(listed.file, pod.line, key, wrong))
        shares = known[kind][0]
        found.append(PodRequest(pod.name, pod.at, shares, wanted, pod.duration, pod.memory))
    fail(problems)
    return found


def fail(problems: Iterable[Problem]) -> None:
    """Raise ConfigError where there is a problem."""
    found = list(problems)
    if found:
        raise ConfigError(found[:MOST_PROBLEMS])


def _shares(pod: AskedPod, plan: Plan, resource: str) -> int:
    pool = plan.pool(resource)
    size = pool.size if pool else 0
    if pod.shares is not None:
        return pod.shares
    return max(1, math.ceil((pod.memory or 0) / size)) if size else 1


def _wrong(plan: Plan, resource: str, shares: int, memory: int | None) -> tuple[str, str]:
    """(key, what is wrong) with a request that can never be placed; empty for any other."""
    never = never_fits(plan, resource, shares)
    if never:
        return "pod", never
    pool = plan.pool(resource)
    gpus = [group.gpu for group in pool.groups if group.gpu] if pool else []
    most = max(((gpu.memory or 0) - gpu.reserved for gpu in gpus), default=0)
    if memory is not None and memory > most:
        return "memory", (
            f"{format_size(memory)} is more than any GPU has: {format_size(most)} at most"
        )
    return "", ""
