"""What a list of pods says, before it is known how the GPUs are shared."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from attrs import frozen

from sgpud.cli.simulate.engine.fitting import never_fits
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
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,9})?", re.ASCII)


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
    """A list of pods and where it stands."""

    file: str
    pods: tuple[AskedPod, ...]


class TimeError(ValueError):
    """A value that is no time in seconds; its text goes on after the value."""


def seconds(value: object) -> float:
    """Seconds of 90, 1.5, "90", "90s", "15m" or "2h"; TimeError for anything else."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        if value.startswith("-"):
            raise TimeError("is negative, write when it is after the start")
        try:
            value = parse_duration(value)
        except DurationError as error:
            raise TimeError(f"is no time: {error.reason}; or seconds as a number") from error
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TimeError('is no time, write seconds such as 90, or a text such as "15m"')
    found = float(value)
    if math.isnan(found):
        raise TimeError("is no number, write seconds")
    if found < 0:
        raise TimeError("is negative, write 0 or more seconds")
    if found > LONGEST:
        raise TimeError(f"is too long, write {LONGEST:.0f} seconds at most")
    return round(found, 3)


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
    size = max((group.size for group in pool.groups), default=0) if pool else 0
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
    most = max((gpu.memory - gpu.reserved for gpu in gpus), default=0)
    if memory is not None and memory > most:
        return "memory", (
            f"{format_size(memory)} is more than any GPU has: {format_size(most)} at most"
        )
    return "", ""
