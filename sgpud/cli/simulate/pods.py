"""A list of pods as TOML.

[[pod]]
name = "train"         # with count: train-1, train-2, …
arrive = "10m"         # seconds as a number, or a string with its unit; 0
duration = "2h"        # or depart; left out: it runs for ever
shares = 4             # 1; where shares stand for memory: as many as hold `memory`
memory = "11GiB"       # what it uses on each GPU; left out: what its shares stand for
gpus = 2               # so many GPUs with that number of shares each; alone: whole ones
resource = "example.com/shared-gpu"  # the one of [sharing]
products = ["*A100*"]  # its nodes have one of these GPUs (a node selector); any node
count = 10             # so many alike,
every = "30s"          # each so long after the one before

[[pod.containers]]     # for a pod of several, in place of these four keys
shares = 1             # and memory, gpus, resource
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from sgpud.cli.simulate.asked import (
    MOST_GPUS,
    MOST_PODS,
    MOST_SHARES,
    AskedContainer,
    AskedPod,
    PodList,
    TimeError,
    fail,
    seconds,
)
from sgpud.config.problems import Problem
from sgpud.config.schema.check import faults, key_name
from sgpud.config.schema.formats import resource_name, size
from sgpud.config.schema.kinds import Integer, Key, ListOf, Table, Text, show
from sgpud.config.source import ConfigSource, file_text, read_text
from sgpud.core.units import parse_size


@frozen
class DurationType:
    """A time: a number of seconds, or a text with a unit."""

    words: str = 'seconds such as 90, or a string such as "15m"'

    def wrong(self, value: object) -> str | None:
        """Wrong unless `seconds` takes it."""
        try:
            seconds(value)
        except TimeError as error:
            return f"{show(value)} {error}"
        return None


def _name(text: str) -> str | None:
    return None if text.strip() and text.isprintable() else "is not a name"


_CONTAINER = (
    Key("shares", Integer(1, MOST_SHARES)),
    Key("memory", Text('a size such as "11GiB"', size())),
    Key("resource", Text("a name in quotes", resource_name)),
    Key("gpus", Integer(1, MOST_GPUS)),
)
_POD = Table(
    (
        Key("name", Text("a name in quotes", _name)),
        Key("arrive", DurationType(), 0),
        Key("duration", DurationType()),
        Key("depart", DurationType()),
        *_CONTAINER,
        Key("products", ListOf(Text("a name in quotes", _name), "a list of names", 64)),
        Key(
            "containers",
            ListOf(
                Table(_CONTAINER, "a table [[pod.containers]]"),
                "tables, each below a line [[pod.containers]]",
                64,
            ),
        ),
        Key("count", Integer(1, MOST_PODS), 1),
        Key("every", DurationType(), 0),
    ),
    "a table [[pod]]",
)
_FILE = Table(
    (Key("pod", ListOf(_POD, "tables, each below a line [[pod]]", 10_000), required=True),),
    "tables",
)


def load_pods(path: Path) -> PodList:
    """Read a list of pods; ConfigError with every problem, each with file, line and key."""
    return parse_pods(file_text(path), str(path))


def parse_pods(text: str | bytes, file: str) -> PodList:
    """The list that a text is; ConfigError as `load_pods`."""
    source = read_text(text, file)
    fail(
        Problem(file, source.line(fault.path), key_name(fault.path), fault.text)
        for fault in faults(source.document, _FILE)
    )
    fail(_contradictions(source))
    entries = source.document["pod"]
    pods = [
        pod
        for number, entry in enumerate(entries)
        for pod in _pods(entry, number + 1, source.line(("pod", number)))
    ]
    pods.sort(key=lambda pod: pod.at)
    return PodList(file, tuple(pods))


def _contradictions(source: ConfigSource) -> Iterator[Problem]:
    total = 0
    for number, entry in enumerate(source.document["pod"]):
        arrive = seconds(entry.get("arrive", 0))
        total += entry.get("count", 1)
        found = {
            "duration": "duration" in entry
            and "depart" in entry
            and "cannot be combined with depart",
            "depart": "depart" in entry
            and seconds(entry["depart"]) < arrive
            and f"is before the pod arrives, at {arrive:g} s",
            "containers": _doubled(entry),
            "every": "every" in entry and "count" not in entry and "has no effect without count",
            "count": total > MOST_PODS and f"makes more than {MOST_PODS} pods in all",
        }
        for key, text in found.items():
            if text:
                line = source.line(("pod", number, key))
                yield Problem(source.file, line, f"pod.{key}", text)


def _doubled(entry: Mapping[str, Any]) -> str:
    """What is wrong with keys that a pod and its containers both have; empty for nothing."""
    if "containers" not in entry:
        return ""
    both = [key.name for key in _CONTAINER if key.name in entry]
    if both:
        return f"cannot be combined with {both[0]}: set it for each container"
    return "" if entry["containers"] else "is empty"


def _pods(entry: dict[str, Any], number: int, line: int) -> Iterator[AskedPod]:
    count = entry.get("count", 1)
    name = entry.get("name", f"pod-{number}")
    at, every = seconds(entry.get("arrive", 0)), seconds(entry.get("every", 0))
    duration = seconds(entry["duration"]) if "duration" in entry else None
    if "depart" in entry:
        duration = round(seconds(entry["depart"]) - at, 3)
    containers = tuple(map(_container, entry.get("containers", [entry])))
    products = tuple(entry.get("products", ()))
    for one in range(count):
        yield AskedPod(
            line,
            f"{name}-{one + 1}" if count > 1 else name,
            round(at + one * every, 3),
            duration,
            containers,
            products,
        )


def _container(entry: Mapping[str, Any]) -> AskedContainer:
    return AskedContainer(
        entry.get("shares"),
        entry.get("resource"),
        parse_size(entry["memory"]) if "memory" in entry else None,
        entry.get("gpus"),
    )
