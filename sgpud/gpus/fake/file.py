"""GPUs that exist only in a file: for laptops, for testing manifests, for the demo.

[[gpu]]
product = "NVIDIA A100-SXM4-40GB"
memory = "40GiB"
count = 2                    # this many of them
reserved = "512MiB"          # what the driver keeps for itself
numa = 0
compute = "8.0"
mig = ["3g.20gb", "1g.5gb"]  # its MIG instances; the name says their memory
# uuid = "GPU-…"             # for a single GPU; derived from its index by default

proc = "DIR" before the first table: where their processes are looked up instead of /proc. DIR/PID
has the files stat, cgroup and mountinfo; DIR/1/stat has to exist.

[[event]] tables say what happens to them, and when: see script.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from attrs import evolve, frozen

from sgpud.config.problems import ConfigError, Problem
from sgpud.config.schema.check import faults, key_name
from sgpud.config.schema.kinds import Integer, Key, ListOf, Table, Text
from sgpud.config.source import ConfigSource, file_text, read_text
from sgpud.core.gpu.gpu import Gpu, Mig
from sgpud.core.json_checks import UUID
from sgpud.core.units import parse_size
from sgpud.gpus.fake.script import (
    EVENTS,
    ScriptedEvent,
    script_problems,
    scripted_events,
    size_fault,
)

SLICES = 7
"""The most compute slices that the MIG instances of one GPU have in total."""
_PROFILE = re.compile(r"([1-7])g\.([1-9][0-9]{0,2})gb(?:\+[a-z.]{1,12})?", re.ASCII)
_COMPUTE = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})", re.ASCII)
_LAST_BUS = 255


def _memory(text: str) -> str | None:
    return size_fault(text) or (None if parse_size(text) else "must be more than 0")


def _profile(text: str) -> str | None:
    return None if _PROFILE.fullmatch(text) else 'is not a MIG profile, e.g. "1g.5gb"'


def _compute(text: str) -> str | None:
    return None if _COMPUTE.fullmatch(text) else 'is not a compute capability, e.g. "8.0"'


def _uuid(text: str) -> str | None:
    if UUID.fullmatch(text) and not text.startswith("MIG-"):
        return None
    return "is not a GPU's UUID: use letters, digits and / . _ + -, at most 55 of them"


def _product(text: str) -> str | None:
    return None if text.strip() and text.isprintable() else "is not a printable name"


def _absolute(text: str) -> str | None:
    return None if text.startswith("/") and text.isprintable() else "is not an absolute path"


_FILE = Table(
    (
        Key(
            "gpu",
            ListOf(
                Table(
                    (
                        Key("product", Text("a name in quotes", _product), required=True),
                        Key("memory", Text('a size such as "40GiB"', _memory), required=True),
                        Key("reserved", Text('a size such as "512MiB"', size_fault), "0"),
                        Key("count", Integer(1, 64), 1),
                        Key("numa", Integer(0, 1023)),
                        Key("compute", Text('a string such as "8.0"', _compute)),
                        Key("uuid", Text("a UUID in quotes", _uuid)),
                        Key(
                            "mig",
                            ListOf(
                                Text('a profile such as "1g.5gb"', _profile),
                                'a list of profiles such as ["1g.5gb"]',
                                SLICES,
                                repeats=True,
                            ),
                            [],
                        ),
                    ),
                    "a table [[gpu]]",
                ),
                "tables, each below a line [[gpu]]",
                64,
                unique="uuid",
            ),
            required=True,
        ),
        Key("event", EVENTS),
        Key("proc", Text("a directory in quotes", _absolute)),
    ),
    "tables",
)


@frozen
class FakeNode:
    """What a file of fake GPUs says."""

    file: str
    gpus: tuple[Gpu, ...]
    script: tuple[ScriptedEvent, ...] = ()
    """What happens to them, in the order of time."""
    proc: str = "/proc"
    """Where their processes are looked up."""


def load(path: Path) -> FakeNode:
    """Read a file of fake GPUs. ConfigError with every problem, each with file, line and key."""
    return parse_fake_gpus(file_text(path), str(path))


def parse_fake_gpus(text: str | bytes, file: str) -> FakeNode:
    """Make the fake GPUs from the text of a file; ConfigError as `load`."""
    source = read_text(text, file)
    problems = [
        Problem(file, source.line(fault.path), key_name(fault.path), fault.text)
        for fault in faults(source.document, _FILE)
    ] or list(_contradictions(source))
    if problems:
        raise ConfigError(problems)
    gpus: list[Gpu] = []
    index = 0
    for entry in source.document["gpu"]:
        for _ in range(entry.get("count", 1)):
            gpus += _gpus(entry, index)
            index += 1
    problems = list(script_problems(source, gpus))
    if problems:
        raise ConfigError(problems)
    proc = source.document.get("proc", "/proc")
    return FakeNode(file, tuple(gpus), scripted_events(source), proc)


def fake_gpus(parts: Iterable[tuple[str, int, str]]) -> tuple[Gpu, ...]:
    """The GPUs of a node, from (product, how many, memory of each as a size)."""
    entries = [
        {"product": product, "memory": memory}
        for product, count, memory in parts
        for _ in range(count)
    ]
    return tuple(gpu for index, entry in enumerate(entries) for gpu in _gpus(entry, index))


def _contradictions(source: ConfigSource) -> Iterator[Problem]:
    for number, entry in enumerate(source.document["gpu"]):
        slices = sum(int(profile[0]) for profile in entry.get("mig", ()))
        found = {
            "uuid": "uuid" in entry
            and entry.get("count", 1) > 1
            and "is for one GPU, but count is more than 1: write a [[gpu]] for each",
            "reserved": parse_size(entry.get("reserved", "0")) >= parse_size(entry["memory"])
            and "leaves no memory",
            "mig": slices > SLICES and f"takes {slices} compute slices, a GPU has {SLICES}",
        }
        for key, text in found.items():
            if text:
                line = source.line(("gpu", number, key))
                yield Problem(source.file, line, f"gpu.{key}", text)


def _gpus(entry: dict[str, Any], index: int) -> Iterator[Gpu]:
    compute = _COMPUTE.fullmatch(entry.get("compute", ""))
    gpu = Gpu(
        uuid=entry.get("uuid") or f"GPU-{uuid5(NAMESPACE_URL, f'sgpud:fake:{index}')}",
        index=index,
        product=entry["product"],
        memory=parse_size(entry["memory"]),
        reserved=parse_size(entry.get("reserved", "0")),
        minor=index,
        pci=f"{index // _LAST_BUS:04x}:{index % _LAST_BUS + 1:02x}:00.0",
        numa=entry.get("numa"),
        compute=(int(compute[1]), int(compute[2])) if compute else None,
        fake=True,
    )
    if not entry.get("mig"):
        yield gpu
    for gi, profile in enumerate(entry.get("mig", ()), 1):
        gigabytes = int(profile.partition(".")[2].partition("gb")[0])
        yield evolve(
            gpu,
            uuid=f"MIG-{uuid5(NAMESPACE_URL, f'{gpu.uuid}/{gi}/0')}",
            product=f"{gpu.product} MIG {profile}",
            memory=min(gigabytes * 2**30, gpu.memory or 0),
            reserved=0,
            mig=Mig(gpu.uuid, gi, 0),
        )
