"""Keeps the memory in use and the utilisation of each GPU for an hour, in memory alone."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import islice

from sgpud.bridge import Clock
from sgpud.core.gpu.observations import Sample
from sgpud.core.status.history import HistoryView, LastHour

STEP = 30.0
"""Seconds of a step."""
STEPS = 120
"""Steps that are kept: an hour."""
MOST = 512
"""GPUs and MIG instances that are kept, the ones measured last: 1 080 bytes each."""
_NONE = -1


class _Ring:
    """One GPU: a value for each step, that of step n at n modulo STEPS."""

    def __init__(self, step: int) -> None:
        self.first = self.last = step
        self._used = array("q", [_NONE]) * STEPS
        self._utilisation = array("b", [_NONE]) * STEPS

    def add(self, step: int, sample: Sample) -> None:
        """Keep the higher value of each step."""
        self._advance(step)
        place = step % STEPS
        self._used[place] = max(self._used[place], _known(sample.used))
        # A reading above 100 % is none.
        self._utilisation[place] = max(
            self._utilisation[place], min(_known(sample.utilisation), 100)
        )

    def view(self, step: int) -> LastHour:
        """The steps from the first one to this one."""
        steps = range(max(self.first, step - STEPS + 1), step + 1)
        return LastHour(
            tuple(self._values(self._used, steps)), tuple(self._values(self._utilisation, steps))
        )

    def _advance(self, step: int) -> None:
        """Forget what is older than an hour."""
        for passed in islice(range(self.last + 1, step + 1), STEPS):
            self._used[passed % STEPS] = self._utilisation[passed % STEPS] = _NONE
        self.last = max(self.last, step)

    def _values(self, kept: array[int], steps: range) -> Iterator[int | None]:
        for step in steps:
            value = kept[step % STEPS] if step <= self.last else _NONE
            yield None if value == _NONE else value


class UsageHistory:
    """The last hour of every GPU."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rings: dict[str, _Ring] = {}

    def samples(self, samples: Sequence[Sample]) -> None:
        """Some GPUs were read."""
        step = self._step
        for sample in samples:
            if sample.error:
                continue
            ring = self._rings.pop(sample.uuid, None) or _Ring(step)
            ring.add(step, sample)
            self._rings[sample.uuid] = ring
        while len(self._rings) > MOST:
            del self._rings[next(iter(self._rings))]

    def view(self) -> HistoryView:
        """What is known now."""
        step = self._step
        rings = {uuid: ring for uuid, ring in self._rings.items() if step - ring.last < STEPS}
        return HistoryView(STEP, STEPS, {uuid: ring.view(step) for uuid, ring in rings.items()})

    @property
    def _step(self) -> int:
        return int(self._clock.seconds() // STEP)


def _known(value: int | None) -> int:
    return _NONE if value is None else value
