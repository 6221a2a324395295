"""What a list of pods says, before it is known how the GPUs are shared."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

from attrs import frozen

from sgpud.cli.simulate.engine.rooms import never_fits
from sgpud.cli.simulate.engine.simulation import plans
from sgpud.cli.simulate.engine.values import Cluster, ContainerRequest, PodRequest
from sgpud.config.problems import ConfigError, Problem
from sgpud.core.planning.plan import Plan
from sgpud.core.units import DurationError, format_size, parse_duration

MOST_PODS = 1_000_000
MOST_PROBLEMS = 100
"""Problems that are reported at once."""
MOST_SHARES = 1_000_000
MOST_GPUS = 64
"""Of one container."""
LONGEST = 1e9
"""Seconds; some 30 years."""
LATEST_DATE = 1e11
"""Seconds since the epoch."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{0,18})?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]")


@frozen
class AskedContainer:
    """What one container of a pod of a list asks for."""

    shares: int | None = None
    """None: one; where shares stand for memory, as many as hold its memory; of `gpus`, all."""
    resource: str | None = None
    """None: the one that `[sharing]` names."""
    memory: int | None = None
    """Bytes that it uses on each GPU it gets; None: what its shares stand for."""
    gpus: int | None = None
    """So many GPUs with that number of shares each; None: the shares as they are."""


@frozen
class AskedPod:
    """One pod of a list."""

    line: int
    name: str
    at: float
    """Seconds."""
    duration: float | None = None
    """Seconds; None: for ever."""
    containers: tuple[AskedContainer, ...] = (AskedContainer(),)
    products: tuple[str, ...] = ()
    """Its nodes have one of these GPUs; none: any node."""


@frozen
class PodList:
    """A list of pods and the file it comes from."""

    file: str
    pods: tuple[AskedPod, ...]
    notes: tuple[str, ...] = ()
    """What was left out of it."""


@frozen
class Wanted:
    """What a kind of pod asks for, or the key and what is wrong with it."""

    containers: tuple[ContainerRequest, ...]
    key: str = ""
    wrong: str = ""


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
        raise TimeError('is not a time, write seconds such as 90, or a string such as "15m"')
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


def requests(listed: PodList, cluster: Cluster) -> list[PodRequest]:
    """The list as requests for these nodes.

    ConfigError with the line of every pod that no node could ever place, each kind once.
    """
    found: list[PodRequest] = []
    made = plans(cluster)
    known: dict[tuple[tuple[AskedContainer, ...], tuple[str, ...]], Wanted] = {}
    problems = []
    for pod in listed.pods:
        kind = (pod.containers, pod.products)
        if kind not in known:
            kinds = {cluster.nodes[number] for number in cluster.allowed(pod.products)}
            there = [plan for gpus, plan in made.items() if gpus in kinds]
            wanted = known[kind] = _wanted(pod, there, cluster.sharing.default.resource)
            if wanted.wrong:
                problems.append(Problem(listed.file, pod.line, wanted.key, wanted.wrong))
        containers = known[kind].containers
        found.append(PodRequest(pod.name, pod.at, containers, pod.duration, pod.products))
    fail(problems)
    return found


def fail(problems: Iterable[Problem]) -> None:
    """Raise ConfigError where there is a problem."""
    found = list(problems)
    if found:
        raise ConfigError(found[:MOST_PROBLEMS])


def _wanted(pod: AskedPod, there: Sequence[Plan], default: str) -> Wanted:
    """What a pod asks of nodes with these plans, or what is wrong with it."""
    if not there:
        return Wanted((), "products", "no node has only GPUs that match one of these products")
    containers = tuple(_container(each, there, each.resource or default) for each in pod.containers)
    never = never_fits(there, [(each.resource, each.shares) for each in containers])
    if never:
        return Wanted(containers, "pod", never)
    for each in containers:
        most = max(
            (group.gpu.memory or 0) - group.gpu.reserved
            for plan in there
            if (pool := plan.pool(each.resource)) is not None
            for group in pool.groups
            if group.gpu
        )
        if each.uses is not None and each.uses > most:
            text = f"{format_size(each.uses)} is more than any GPU has: {format_size(most)} at most"
            return Wanted(containers, "memory", text)
    return Wanted(containers)


def _container(asked: AskedContainer, there: Sequence[Plan], resource: str) -> ContainerRequest:
    pools = [pool for plan in there if (pool := plan.pool(resource)) is not None]
    shares = asked.shares
    if shares is None and asked.gpus:
        shares = max((pool.largest for pool in pools), default=1)
    if shares is None:
        size = max((pool.size for pool in pools), default=0)
        shares = max(1, math.ceil((asked.memory or 0) / size)) if size else 1
    return ContainerRequest(shares * (asked.gpus or 1), resource, asked.memory)
