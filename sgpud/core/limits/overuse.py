"""Overuse: which containers of a GPU use more memory than they were granted, and whose is largest.

It gets each sample and decides for each GPU by itself; it takes no action.

- Over: the container uses more than its grant and the tolerance, while more of its GPU than the
  pressure is used.
- Overuse: every sample for `over_for` has found it over. A sample without it, or none for a while,
  and the time starts again.
- The one to stop is the one with the largest excess, but none whose use is not known for certain,
  no static or critical pod, and none that the configuration or its own annotation spares.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from attrs import field, frozen

from sgpud.core.gpu.attribution import Container
from sgpud.core.gpu.gpu import glob_matches
from sgpud.core.limits.settings import LimitSettings, OveruseAction
from sgpud.core.units import format_duration, format_size

_STATIC = re.compile(r"[0-9a-f]{32}")
"""The UID of a static pod: the kubelet's hash of its manifest. Others have hyphens."""
LARGEST = "it exceeds its grant by more than any other container of this GPU"
SMALLER = "another container of this GPU exceeds its grant by more"


@frozen
class MemoryUse:
    """What one container uses of one GPU, in one sample."""

    container: Container
    """Pod UID and name."""
    pod: str
    """NAMESPACE/NAME; empty: not known."""
    granted: int
    """Bytes."""
    used: int | None
    """Bytes; None: it is not known for certain."""
    spared: str = ""
    """Why the API server's pod is never stopped, or empty."""


@frozen
class GpuMemorySample:
    """What is known of one GPU's memory, from one sample."""

    uuid: str
    at: float
    """In monotonic seconds."""
    total: int
    """Bytes."""
    used: int | None
    """Bytes that are not free; None: not known."""
    uses: Sequence[MemoryUse] = ()


@frozen
class Excess:
    """How one container exceeds its grant."""

    since: float
    """The first of the samples, up to the last, that found it over, in monotonic seconds."""
    pod: str
    granted: int
    used: int
    verdict: str = ""
    """For overuse: what would come of it, and why; empty: it is not over for long enough."""

    @property
    def size(self) -> int:
        """Bytes beyond the grant."""
        return self.used - self.granted

    def told(self, gpu: str, at: float) -> str:
        """In words: how it exceeds its grant of this GPU, at a time."""
        return (
            f"has used {format_size(self.size)} more memory of GPU {gpu} than the"
            f" {format_size(self.granted)} it was granted for {at - self.since:.0f} s"
        )


@frozen
class OveruseState:
    """The containers of one GPU that are over."""

    at: float
    """The last sample."""
    over: Mapping[Container, Excess] = field(factory=dict)
    victim: Container | None = None
    """The one to stop; None: none."""

    @property
    def overusers(self) -> Mapping[Container, Excess]:
        """Those that have been over for long enough."""
        return {name: one for name, one in self.over.items() if one.verdict}


def allowance(sizes: Iterable[int], expected: int) -> int | None:
    """The bytes that a container was granted of one GPU; None: its shares promise none.

    `sizes`: what its shares of each resource stand for, 0 for places, which count together as
    `expected` bytes.
    """
    found = list(sizes)
    if all(found):
        return sum(found)
    return sum(found) + expected if expected else None


def step(
    before: OveruseState | None, seen: GpuMemorySample, settings: LimitSettings, gap: float
) -> OveruseState:
    """The state after a sample. A pause of more than `gap` seconds begins anew.

    A sample that is no newer than the last changes nothing.
    """
    if before and seen.at <= before.at:
        return before
    known = before.over if before and seen.at <= before.at + gap else {}
    over = {
        use.container: Excess(
            known[use.container].since if use.container in known else seen.at,
            use.pod,
            use.granted,
            use.used,
        )
        for use in seen.uses
        if use.used is not None and use.used > use.granted + settings.tolerance
    }
    if not pressed(seen, settings):
        return OveruseState(seen.at)
    long = {name: one for name, one in over.items() if seen.at - one.since >= settings.over_for}
    said = {use.container: use.spared for use in seen.uses}
    spared = {
        name: f"it is spared: {why}"
        for name, one in long.items()
        if (why := said[name] or _spared(name, one, settings))
    }
    able = [(-one.size, name) for name, one in long.items() if name not in spared]
    victim = min(able)[1] if able else None
    largest = LARGEST + _consequence(settings)
    verdicts = {name: spared.get(name) or (largest if name == victim else SMALLER) for name in long}
    return OveruseState(
        seen.at,
        {name: _judged(one, verdicts.get(name, "")) for name, one in over.items()},
        victim,
    )


def pressed(seen: GpuMemorySample, settings: LimitSettings) -> bool:
    """Whether so much of the GPU's memory is used that overuse counts."""
    if settings.pressure is None:
        return True
    return seen.used is not None and seen.used > settings.pressure.of(seen.total)


def _consequence(settings: LimitSettings) -> str:
    """What comes of being the largest."""
    if settings.overuse is not OveruseAction.EVICT:
        return ""
    if settings.dry_run:
        return "; without [limits] dry_run its pod would be evicted"
    rest = format_duration(settings.cool_down)
    return f"; its pod is evicted, {rest} after any other one for this GPU at the earliest"


def _judged(one: Excess, verdict: str) -> Excess:
    return Excess(one.since, one.pod, one.granted, one.used, verdict)


def _spared(name: Container, one: Excess, settings: LimitSettings) -> str:
    """Why nothing would be done to a container, or empty."""
    if _STATIC.fullmatch(name[0]):
        return "a static pod"
    if not one.pod:
        return "the name of its pod is not known yet"
    match = next((each for each in settings.spare if glob_matches(each, one.pod)), None)
    return f'[limits] spare has "{match}"' if match else ""
