"""Waiting for what other processes do: always with an end, and with words for what did not come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

INTERVAL = 0.05
"""Seconds between two questions: a kubelet offers no watch, and answers 100 of them a second."""


class DidNotHappenError(AssertionError):
    """Something that the test waited for did not come in time."""


def until(
    question: Callable[[], T | None], what: str, seconds: float = 30, every: float = INTERVAL
) -> T:
    """Return the first answer that is true; DidNotHappenError when none comes in `seconds`."""
    pause = threading.Event()
    end = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > end:
            message = f"in {seconds:g} s it did not happen that {what}; last seen: {answer!r}"
            raise DidNotHappenError(message)
        pause.wait(every)
    return answer


@contextmanager
def repeated(action: Callable[[], object], every: float) -> Iterator[None]:
    """Do something again and again, in a thread, while the block runs; its error is raised after.

    `every`: seconds from the end of one time to the next.
    """
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every):
            action()

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(repeat)
        try:
            yield
        finally:
            over.set()
        done.result(30)
