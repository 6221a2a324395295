"""How long shares are gone: a kubelet is asked for them about 50 times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from attrs import Factory, define, frozen

from tests.e2e.kubelet import Kubelet

PAUSE = 0.02
"""Seconds between two questions."""


@frozen
class Sample:
    """What was allocatable at some moment between two."""

    asked: float
    answered: float
    ids: frozenset[str]


@define
class Absences:
    """The answers of a while, in order."""

    samples: list[Sample] = Factory(list)

    def longest(self, wanted: frozenset[str]) -> float:
        """Seconds that any of these ids was gone at most; 0 when nobody saw one missing.

        An absence lasts from the last answer that still had the id to the first that has it again,
        so that it is too long by what lies between two answers, never too short.
        """
        return max((_longest(self.samples, name) for name in wanted), default=0.0)


def _longest(samples: Sequence[Sample], name: str) -> float:
    longest, since, gone = 0.0, samples[0].asked, False
    for sample in samples:
        if name not in sample.ids:
            gone = True
            continue
        if gone:
            longest = max(longest, sample.answered - since)
        since, gone = sample.asked, False
    return max(longest, samples[-1].answered - since) if gone else longest


@contextmanager
def watched(kubelet: Kubelet, resource: str) -> Iterator[Absences]:
    """Ask from another thread while the block runs."""
    found = Absences()
    over = threading.Event()

    def sample() -> None:
        while not over.wait(PAUSE):
            asked = time.monotonic()
            ids = kubelet.allocatable(resource)
            found.samples.append(Sample(asked, time.monotonic(), ids))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(sample)
        try:
            yield found
        finally:
            over.set()
        done.result(30)
