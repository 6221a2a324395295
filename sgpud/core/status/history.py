"""The last hour of the GPUs, as people see it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen


@frozen
class LastHour:
    """One GPU, the oldest step first, the current one last. Null: not measured in that step."""

    used: tuple[int | None, ...]
    """The most memory in use, in bytes."""
    utilisation: tuple[int | None, ...]
    """The highest utilisation, in percent."""


@frozen
class HistoryView:
    """Every GPU that was measured in the last hour."""

    every: float
    """Seconds of a step."""
    steps: int
    """Steps at most: a GPU that is known for a shorter time has fewer."""
    gpus: Mapping[str, LastHour]
    """By UUID."""
