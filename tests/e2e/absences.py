"""How long shares are gone: a kubelet is asked for them more than 50 times a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

from attrs import Factory, define, frozen

from tests.e2e.kubelet import Kubelet
from tests.e2e.waiting import repeated

PAUSE = 0.012
"""Seconds between an answer and the next question. A kubelet gives 100 answers in a second."""


@frozen
class Sample:
    """What was allocatable at some moment between two."""

    asked: float
    answered: float
    ids: frozenset[str]


@frozen
class Absence:
    """How long something was gone, in seconds: what was seen, and what may have been."""

    at_least: float = 0.0
    at_most: float = 0.0

    def __str__(self) -> str:
        return f"{1000 * self.at_least:.0f} to {1000 * self.at_most:.0f} ms"


@define
class Absences:
    """The answers of a while, in order."""

    samples: list[Sample] = Factory(list)

    def longest(self, wanted: frozenset[str]) -> Absence:
        """The longest absence of any of these ids; of none when nobody saw one missing."""
        found = (absence for name in wanted for absence in self._absences(name))
        return max(found, key=lambda absence: absence.at_most, default=Absence())

    def _absences(self, name: str) -> Iterator[Absence]:
        for here, group in groupby(enumerate(self.samples), lambda each: name in each[1].ids):
            if not here:
                missing = [number for number, _ in group]
                first, last = missing[0], missing[-1]
                before = self.samples[max(first - 1, 0)]
                after = self.samples[min(last + 1, len(self.samples) - 1)]
                seen = self.samples[last].asked - self.samples[first].answered
                yield Absence(max(seen, 0.0), after.answered - before.asked)


@contextmanager
def watched(kubelet: Kubelet, resource: str) -> Iterator[Absences]:
    """Ask from another thread while the block runs."""
    found = Absences()

    def sample() -> None:
        asked = time.monotonic()
        ids = kubelet.allocatable(resource)
        found.samples.append(Sample(asked, time.monotonic(), ids))

    with repeated(sample, PAUSE):
        yield found
