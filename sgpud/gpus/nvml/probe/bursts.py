"""Coalesces bursts of events, inside the child process."""

from __future__ import annotations

import time

from sgpud.gpus.nvml.probe.protocol import COALESCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MOST_KINDS = 256
"""The most different events in one window; further ones wait for the next window."""


class BurstCounter:
    """Counts events within a window, so that a burst is a few lines however long it is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[tuple[object, ...], tuple[dict[str, Any], int]] = {}
        self._end = 0.0

    def is_first(self, fields: dict[str, Any]) -> bool:
        """Whether to report an event now; otherwise it is counted until the window ends."""
        if not self._counts:
            self._end = self._clock() + COALESCE
        key = tuple(fields.values())
        counted = self._counts.get(key)
        self._counts[key] = (fields, counted[1] + 1 if counted else 0)
        return counted is None

    @property
    def full(self) -> bool:
        """Whether no other event can be counted before the window ends."""
        return len(self._counts) >= MOST_KINDS

    def due(self, most: float) -> float:
        """Seconds until counts are due, at most `most`."""
        return max(0.0, min(most, self._end - self._clock())) if self._counts else most

    def overdue(self) -> list[tuple[dict[str, Any], int]]:
        """The counts, once their window has ended."""
        if not self._counts or self._clock() < self._end:
            return []
        found = [(fields, count) for fields, count in self._counts.values() if count]
        self._counts = {}
        return found
