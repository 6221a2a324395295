"""Watches what the kubelet sees, and says when a promise is broken. It shares no code with sgpud.

- Held stays: an id that a live container holds is in every list of its resource.
- Two steps out: an id that leaves a list was Healthy for the last time 30 s ago or earlier.
- One meaning: no id is in the lists of two resources.
- A GPU's live containers declare no more memory than it has.
- A cordoned GPU gets no new container 15 s after the cordon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import define, field

from sgpud.testing.kubelet.records import Container, DeviceList

GONE_AFTER = 30.0
"""Seconds from Unhealthy to gone, as docs/architecture.md promises."""
IN_FORCE = 15.0
"""Seconds after which a cordon holds for every new container."""
TOLERANCE = 1.0
"""Seconds between what the daemon does and what a busy machine's threads here see of it."""
_UUIDS = re.compile(r"SGPUD_(?:\w+_)?GPU_UUIDS")


def declared(container: Container) -> dict[str, int]:
    """Bytes of memory by GPU that a container was promised; 0 for a place."""
    found: dict[str, int] = {}
    for name, value in container.envs.items():
        if _UUIDS.fullmatch(name):
            uuids = value.split(",")
            memory = container.envs.get(name.replace("GPU_UUIDS", "MEMORY_BYTES"), "")
            sizes = [int(size) for size in memory.split(",")] if memory else [0] * len(uuids)
            for uuid, size in zip(uuids, sizes, strict=True):
                found[uuid] = found.get(uuid, 0) + size
    return found


@define
class _Holding:
    """What a live container holds, since when."""

    ids: Mapping[str, frozenset[str]]
    memory: Mapping[str, int]
    since: float


@define
class Checker:
    """Takes every list and every admission, in the order of their times."""

    memory: Mapping[str, int]
    """Bytes that each GPU has."""
    violations: list[str] = field(factory=list)
    lists: int = 0
    _holdings: dict[str, _Holding] = field(factory=dict)
    _healthy: dict[str, dict[str, float]] = field(factory=dict)
    """By resource, when an id that is listed was Healthy for the last time."""
    _cordons: dict[str, float] = field(factory=dict)

    def admitted(self, pod: str, container: Container, at: float) -> None:
        """A container has started."""
        memory = declared(container)
        ids = {resource: frozenset(found) for resource, found in container.ids.items()}
        self._holdings[pod] = _Holding(ids, memory, at)
        for uuid in memory:
            total = sum(each.memory.get(uuid, 0) for each in self._holdings.values())
            if total > self.memory.get(uuid, 0):
                self._complain(at, f"{uuid}: {total} bytes declared of {self.memory.get(uuid)}")
            cordoned = self._cordons.get(uuid)
            if cordoned is not None and at - cordoned > IN_FORCE:
                self._complain(at, f"{pod} got {uuid}, cordoned {at - cordoned:.1f} s before")

    def ended(self, pod: str) -> None:
        """A pod has ended."""
        self._holdings.pop(pod, None)

    def cordoned(self, uuid: str, at: float | None) -> None:
        """A GPU was cordoned, or with None no longer is."""
        if at is None:
            self._cordons.pop(uuid, None)
        else:
            self._cordons[uuid] = at

    def listed(self, message: DeviceList) -> None:
        """The kubelet got a list."""
        self.lists += 1
        present = message.devices.keys()
        for pod, holding in self._holdings.items():
            held = holding.ids.get(message.resource, frozenset())
            lost = held - present
            if lost and message.at > holding.since + TOLERANCE:
                self._complain(message.at, f"{pod} holds {_some(lost)}, which left the list")
        before = self._healthy.setdefault(message.resource, {})
        for one in before.keys() - present:
            since = message.at - before.pop(one)
            if since < GONE_AFTER - TOLERANCE:
                self._complain(message.at, f"{one} left {since:.1f} s after it was Healthy")
        for other, ids in self._healthy.items():
            twice = ids.keys() & present if other != message.resource else ()
            if twice:
                self._complain(message.at, f"{_some(twice)} is in {other}, too")
        for one in present:
            before.setdefault(one, float("-inf"))
        before.update(dict.fromkeys(message.healthy, message.at))

    def forgotten(self, resource: str) -> None:
        """The kubelet has dropped a resource that nobody registers any more."""
        self._healthy.pop(resource, None)

    def _complain(self, at: float, text: str) -> None:
        self.violations.append(f"{at:.1f}: {text}")


def _some(ids: Iterable[str]) -> str:
    found = sorted(ids)
    return f"{found[0]} and {len(found) - 1} more" if len(found) > 1 else found[0]
