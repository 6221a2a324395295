"""The caps that pods should have, those that they have, and what to do about the difference.

A cap is of one pod on one GPU, set on the pod's cgroup by the helper: it bounds all containers of
the pod together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import field, frozen

from sgpud.core.gpu.gpu import Gpu
from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import CapTerms
from sgpud.core.planning.holdings import Holder, Key

_MIB = 2**20
PodGpu = tuple[str, str]
"""The UID of a pod, and the UUID of a GPU."""


@frozen
class GpuLimiting:
    """Whether the helper can limit the memory of one GPU's containers."""

    backend: str = ""
    """`dmem` or `misc`: what the driver does it with; empty: it cannot."""
    problem: str = ""
    """Why it cannot, or empty."""


@frozen
class CapState:
    """What limits one pod on one GPU."""

    limit: int | None = None
    """Bytes, as the driver shows them; None: none of ours."""
    used: int | None = None
    """Bytes that count against it; None: not known."""
    late: bool = False
    """Whether it was set after the pod's containers had started, and what they had allocated by
    then does not count."""
    problem: str = ""
    """Why there is none, or empty."""
    waits: bool = False
    """Whether a container of the pod does not start for that reason."""


@frozen
class CapFacts:
    """What is known of memory caps."""

    installed: bool = False
    """Whether there is a helper."""
    gpus: Mapping[str, GpuLimiting] = field(factory=dict)
    """What the helper can do, by UUID of GPUs."""
    caps: Mapping[PodGpu, CapState] = field(factory=dict)
    """The pods' caps, and those that could not be set."""


@frozen
class FoundCap:
    """A limit of ours, as the helper has it on record."""

    pod: str
    gpu: str
    cgroup: str
    size: int
    """Bytes that were set."""
    late: bool
    limit: int | None
    """Bytes that the driver shows; None: none."""
    used: int | None
    problem: str = ""
    """Why the driver does not show it, or empty."""


@frozen
class CapChanges:
    """What the helper has to do."""

    set: Mapping[PodGpu, int] = field(factory=dict)
    """Bytes."""
    clear: tuple[FoundCap, ...] = ()


def can_be_capped(gpu: Gpu) -> str:
    """Why a driver cannot limit memory on a GPU, or empty."""
    if gpu.fake:
        return "it is a fake GPU"
    if gpu.mig:
        return "NVIDIA's driver cannot limit memory within a MIG instance"
    return "" if gpu.memory else "NVML does not report its memory"


def pod_caps(
    holders: Sequence[Holder], gpus: Mapping[str, Gpu], terms: CapTerms
) -> dict[str, int | str]:
    """What a pod may use of each GPU that it holds memory of: bytes, or why that has no limit.

    `holders`: its containers. GPUs of which it holds places alone are left out. What an init
    container hands on to a later one counts once, so that the larger of the two phases counts.
    """
    found: dict[str, int | str] = {}
    for uuid in dict.fromkeys(uuid for one in holders for uuid in one.gpus):
        mine = [one for one in holders if uuid in one.gpus]
        if not any(one.sizes.get(uuid) for one in mine):
            continue
        gpu = gpus.get(uuid)
        why = can_be_capped(gpu) if gpu else "the GPU is gone from this node"
        if not all(one.sizes.get(uuid) for one in mine):
            why = "the pod holds places of it, which promise no memory"
        size = terms.of(_promised(mine, uuid), _at_a_time(mine, uuid))
        size = min(size, (gpu.memory or 0) if gpu else 0) // _MIB * _MIB
        found[uuid] = why or size or "what its shares represent is less than 1 MiB"
    return found


def changes(
    wanted: Mapping[PodGpu, int], found: Iterable[FoundCap], started: Iterable[str]
) -> CapChanges:
    """What has to be set and cleared for exactly the wanted caps to be in force.

    `started`: the pods whose containers have been started, or may have been. The others' caps are
    set when the kubelet asks, before the first one starts.
    """
    known = {(one.pod, one.gpu): one for one in found}
    may = set(started)
    return CapChanges(
        {
            key: size
            for key, size in wanted.items()
            if (key in known or key[0] in may)
            and (key not in known or size != known[key].limit or size != known[key].size)
        },
        tuple(one for key, one in known.items() if key not in wanted),
    )


def _promised(holders: Iterable[Holder], uuid: str) -> int:
    """Bytes that their shares of a GPU stand for, each share once."""
    counted: dict[Key, IntSet] = {}
    total = 0
    for one in sorted(holders, key=lambda one: -one.sizes.get(uuid, 0)):
        for stem, numbers in one.shares.items():
            if one.gpu or stem == uuid:
                before = counted.get((one.resource, stem), IntSet())
                counted[one.resource, stem] = before | numbers
                total += len(numbers - before) * one.sizes.get(uuid, 0)
    return total


def _at_a_time(holders: Iterable[Holder], uuid: str) -> int:
    """How many of the containers run at the same time, at most.

    Those given last first: they have what was an init container's.
    """
    counted: dict[Key, IntSet] = {}
    names: set[str] = set()
    for one in sorted(holders, key=lambda one: (-one.since, one.count_on(uuid), one.container)):
        mine = {
            (one.resource, stem): numbers
            for stem, numbers in one.shares.items()
            if one.gpu or stem == uuid
        }
        if all(not numbers & counted.get(key, IntSet()) for key, numbers in mine.items()):
            names.add(one.container)
            for key, numbers in mine.items():
                counted[key] = counted.get(key, IntSet()) | numbers
    return len(names)
