"""What the histories of a simulation come to: sums, peaks and means, and a picture of each GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from attrs import frozen

from sgpud.cli.simulate.engine.values import GpuHistory, PodResult, SimulationResult, WaitReason


@frozen
class GpuSums:
    """One GPU's use over a whole simulation."""

    peak_shares: int
    mean_shares: float
    peak_memory: int
    """Bytes that were used."""
    mean_memory: float
    peak_declared: int
    """Bytes that the held shares stood for."""
    mean_declared: float
    over: float
    """Seconds in which more memory was used than the GPU has for containers."""
    picture: tuple[float, ...]
    """The fraction of its shares that was held, on average, in each of so many equal times."""


def sums(outcome: SimulationResult, history: GpuHistory, parts: int) -> GpuSums:
    """The sums of one of the outcome's histories, with a picture in so many parts."""
    span = outcome.end - outcome.start
    room = (history.gpu.memory or 0) - history.gpu.reserved
    shares = memory = over = 0.0
    picture = [0.0] * parts
    for start, stop, held, used in _stretches(history, outcome.end):
        long = stop - start
        shares += held * long
        memory += used * long
        over += long if used > room else 0.0
        if held:
            _paint(picture, (start - outcome.start) / span, (stop - outcome.start) / span, held)
    whole = max(1, history.shares)
    peak = max((use.held for use in history.uses), default=0)
    mean = shares / span if span else 0.0
    return GpuSums(
        peak,
        mean,
        max((use.memory for use in history.uses), default=0),
        memory / span if span else 0.0,
        peak * history.each,
        mean * history.each,
        over,
        tuple(part * parts / whole for part in picture),
    )


def refusals(outcome: SimulationResult) -> dict[str, int]:
    """How many pods failed on a node, by rule."""
    return dict(Counter(failure.rule for entry in outcome.entries for failure in entry.failures))


def waits(outcome: SimulationResult) -> dict[str, int]:
    """How many requests waited for each reason; one can have several."""
    found = Counter(wait for entry in outcome.entries for wait in entry.waits)
    return {wait.value: found[wait] for wait in WaitReason}


def waited(entry: PodResult, end: float) -> float:
    """Seconds from when a request came until it was placed, or until the end."""
    return (end if entry.placed is None else entry.placed) - entry.request.at


def _stretches(history: GpuHistory, end: float) -> Iterator[tuple[float, float, int, int]]:
    """(start, stop, shares held, memory used): the times in which nothing changed."""
    stops = (*(use.at for use in history.uses[1:]), end)
    for use, stop in zip(history.uses, stops, strict=False):
        if stop > use.at:
            yield use.at, stop, use.held, use.memory


def _paint(picture: list[float], start: float, stop: float, held: int) -> None:
    """Add so many held shares from `start` to `stop`, both as fractions of the whole."""
    parts = len(picture)
    first, last = int(start * parts), min(int(stop * parts), parts - 1)
    for part in range(first, last + 1):
        inside = min(stop, (part + 1) / parts) - max(start, part / parts)
        picture[part] += held * max(0.0, inside)
