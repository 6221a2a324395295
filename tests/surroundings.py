"""What tests of several rooms need around the code: a log that is read, a clock with threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

WITHIN = 20.0
"""Seconds after which a test gives up waiting for another thread."""


@implementer(ILogObserver)
class Said:
    """What sgpud has logged, as text; from `listening` only."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if str(event.get("log_namespace")).startswith("sgpud"):
            self.events.append(event)

    @property
    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    def about(self, word: str) -> list[str]:
        return [line for line in self.lines if word in line]


@contextmanager
def listening() -> Iterator[Said]:
    """Hear what is logged meanwhile."""
    said = Said()
    globalLogPublisher.addObserver(said)
    try:
        yield said
    finally:
        globalLogPublisher.removeObserver(said)


class FakeReactor(Clock):
    """A time that the test moves, and calls from threads that the test lets in one by one.

    Nothing of ours that is tested with it uses the pool or reads a descriptor.
    """

    getThreadPool: Any = None
    addReader: Any = None
    removeReader: Any = None
    stop: Any = None

    def __init__(self) -> None:
        super().__init__()
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., Any], /, *args: object) -> None:
        self._calls.put(lambda: function(*args))

    def let_in(self) -> None:
        """Run the next call from a thread; queue.Empty where none comes in time."""
        self._calls.get(timeout=WITHIN)()

    @property
    def quiet(self) -> bool:
        """Whether no call from a thread waits to be let in."""
        return self._calls.empty()


@contextmanager
def without_privilege() -> Iterator[None]:
    """Be somebody to whom permissions apply: root is not held up by them."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def descriptors() -> int:
    """How many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder for sockets: pytest's own are too long for the address of one."""
    with TemporaryDirectory(prefix="sgpud-") as folder:
        yield Path(folder)
