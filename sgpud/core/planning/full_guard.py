"""The full-GPU guard: which GPUs have so little free memory that their free shares are withheld.

A GPU's free memory is what the driver reports, less what containers granted since are expected to
use. Each GPU is judged by itself; `step` takes its decision from one moment to the next.

- Full: free memory is below the headroom. No longer full: every measurement for `resume_after` has
  found more than `resume` free.
- A decision stands for at least APART seconds.
- Without a fresh measurement the last decision stays, and is `stale`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve, frozen

from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import Sample
from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import CheckpointState, Grant, Key, held
from sgpud.core.sharing.rules import FullGuardSettings, Partition, Sharing
from sgpud.core.units import format_size

APART = 30.0
"""Seconds between two decisions on one GPU at least: each is a list message, and the scheduler sees
it only after some of the kubelet's 10 s."""
MISSED = 3
"""Measurements that may be missing before a decision counts as stale."""
FRESH_FOR = 15.0
"""Seconds for which placement looks at a measurement."""
STEPS = 20
"""Steps in which placement looks at free memory: of 5 % each, so that noise moves nothing."""

Samples = Mapping[str, tuple[Sample, float]]
"""The last measurement of each GPU's memory by UUID, and when (in monotonic seconds)."""


@frozen
class MemoryReading:
    """What is known of one GPU's memory. All in bytes."""

    total: int
    reserved: int = 0
    """Bytes that the driver reserves."""
    used: int | None = None
    """Measured; None: not yet, or not reported by NVML."""
    at: float = 0.0
    """When, in monotonic seconds."""
    expected: int = 0
    """Bytes that recently started containers are expected to use together."""

    @property
    def free(self) -> int:
        """Free bytes: of measured and expected use, the larger one counts."""
        return self.total - self.reserved - max(self.used or 0, self.expected)


@frozen
class FullState:
    """The decision on one GPU."""

    measured: float
    """When it was measured last, or else first looked at, in monotonic seconds."""
    full: bool = False
    changed: float = float("-inf")
    """When that was decided, in monotonic seconds."""
    clear: float | None = None
    """The first of the measurements, up to the last, that found enough free."""
    stale: bool = False
    """Whether there is no fresh measurement."""
    reason: str = ""
    """Why it is full."""


def step(
    watch: FullState | None,
    seen: MemoryReading,
    guard_settings: FullGuardSettings,
    measure_every: float,
    now: float,
) -> FullState:
    """The decision at `now`. `watch` of None: the first one for this GPU.

    Calling it again at the same time changes nothing.
    """
    watch = watch or FullState(now)
    if seen.used is not None:
        watch = evolve(watch, measured=max(watch.measured, seen.at))
    if now - watch.measured >= MISSED * measure_every:
        return evolve(watch, stale=True, clear=None)
    if seen.used is None:
        return evolve(watch, stale=False)
    watch = evolve(watch, stale=False)
    headroom, resume = limits(guard_settings, seen.total)
    settled = now >= watch.changed + APART
    if not watch.full:
        if seen.free >= headroom or not settled:
            return watch
        free, of = format_size(max(0, seen.free)), format_size(seen.total)
        least = guard_settings.headroom
        reason = f"full: {free} of {of} were free, memory_headroom is {least}"
        return evolve(watch, full=True, changed=now, clear=None, reason=reason)
    if seen.free <= resume:
        return evolve(watch, clear=None)
    clear = seen.at if watch.clear is None else watch.clear
    if settled and seen.at >= clear + guard_settings.resume_after:
        return evolve(watch, full=False, changed=now, clear=None, reason="")
    return evolve(watch, clear=clear)


def limits(guard_settings: FullGuardSettings, total: int) -> tuple[int, int]:
    """Free bytes below which a GPU becomes full, and above which it stops being full."""
    headroom = guard_settings.headroom.of(total)
    resume = 2 * headroom if guard_settings.resume is None else guard_settings.resume.of(total)
    return headroom, max(headroom, resume)


def watches(
    before: Mapping[str, FullState],
    seen: Mapping[str, MemoryReading],
    guard_settings: FullGuardSettings,
    measure_every: float,
    now: float,
) -> dict[str, FullState]:
    """The decisions on all of these GPUs."""
    return {
        uuid: step(before.get(uuid), each, guard_settings, measure_every, now)
        for uuid, each in seen.items()
    }


def looked_at(
    partitions: Mapping[Key, Partition],
    gpus: Iterable[Gpu],
    samples: Samples,
    checkpoint: CheckpointState,
    grants: Iterable[Grant],
    guard_settings: FullGuardSettings,
    wall: float,
) -> dict[str, MemoryReading]:
    """The readings of the GPUs that the guard watches: those without memory shares."""
    places = {uuid for (_, uuid), partition in partitions.items() if not partition.size}
    young: dict[str, int] = {}
    for uuid in _young(checkpoint, grants, wall - guard_settings.settle):
        young[uuid] = young.get(uuid, 0) + 1
    found = {}
    for gpu in gpus:
        if gpu.uuid in places and gpu.memory is not None:
            sample, at = samples.get(gpu.uuid, (None, 0.0))
            used = sample.used if sample else None
            expected = young.get(gpu.uuid, 0) * guard_settings.expected
            found[gpu.uuid] = MemoryReading(gpu.memory, gpu.reserved, used, at, expected)
    return found


def free_steps(gpus: Iterable[Gpu], samples: Samples, now: float) -> dict[str, int]:
    """Measured free memory of each GPU in steps of 5 %, where the measurement is fresh."""
    found = {}
    for gpu in gpus:
        sample, at = samples.get(gpu.uuid, (None, 0.0))
        if sample and sample.used is not None and now < at + FRESH_FOR and gpu.memory:
            free = gpu.memory - gpu.reserved - sample.used
            found[gpu.uuid] = min(STEPS, max(0, free * STEPS // gpu.memory))
    return found


def next_look(
    watched: Mapping[str, FullState],
    steps: Mapping[str, int],
    samples: Samples,
    sharing: Sharing | None,
) -> float | None:
    """When time alone makes a decision stale or a measurement old; None where it does not."""
    missed = MISSED * sharing.measure_every if sharing else 0.0
    dues = [watch.measured + missed for watch in watched.values() if not watch.stale]
    dues += [samples[uuid][1] + FRESH_FOR for uuid in steps if uuid in samples]
    return min(dues, default=None)


def _young(checkpoint: CheckpointState, grants: Iterable[Grant], since: float) -> Iterator[str]:
    """The GPUs of every container that was given shares after `since`, in seconds since the epoch.

    An unknown time counts as old.
    """
    for holder in checkpoint.holders:
        if holder.since > since and holder.since:
            yield from holder.gpus
    recorded = held(checkpoint, ())
    for grant in grants:
        if grant.at > since:
            for stem, numbers in grant.shares.items():
                if numbers - recorded.get((grant.resource, stem), IntSet()):
                    yield grant.gpu or stem
