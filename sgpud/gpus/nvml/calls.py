"""Counts the NVML processes, and the time that their calls take."""

from __future__ import annotations

from collections.abc import Iterable

from sgpud.core.status.view import CallTimes


class CallCounts:
    """Of all the processes that one monitor has had."""

    def __init__(self) -> None:
        """Everything is counted from 0."""
        self._starts = 0
        self._times: dict[str, tuple[int, float]] = {}

    def started(self) -> None:
        """One more process is started."""
        self._starts += 1

    def took(self, calls: Iterable[tuple[str, int, float]]) -> None:
        """Calls, how often each was made, and the seconds that it took."""
        for call, times, seconds in calls:
            before = self._times.get(call, (0, 0.0))
            self._times[call] = (before[0] + times, before[1] + seconds)

    @property
    def counted(self) -> tuple[int, tuple[CallTimes, ...]]:
        """The processes that were started, and the times of their calls."""
        times = (CallTimes(call, *counted) for call, counted in sorted(self._times.items()))
        return self._starts, tuple(times)
