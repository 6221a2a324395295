"""Counts the NVML processes, and the time their calls take."""

from __future__ import annotations

from collections.abc import Iterable

from sgpud.core.status.view import CallTimes


class CallCounts:
    """The counts of all processes of one monitor."""

    def __init__(self) -> None:
        """All counts start at 0."""
        self._starts = 0
        self._times: dict[str, tuple[int, float]] = {}

    def started(self) -> None:
        """A process was started."""
        self._starts += 1

    def took(self, calls: Iterable[tuple[str, int, float]]) -> None:
        """Calls, how often each was made, and how many seconds it took."""
        for call, times, seconds in calls:
            before = self._times.get(call, (0, 0.0))
            self._times[call] = (before[0] + times, before[1] + seconds)

    @property
    def counted(self) -> tuple[int, tuple[CallTimes, ...]]:
        """The number of processes started, and the times of their calls."""
        times = (CallTimes(call, *counted) for call, counted in sorted(self._times.items()))
        return self._starts, tuple(times)
