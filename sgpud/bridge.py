"""The bridge between the reactor and gRPC's worker threads: traffic goes one way.

Reactor to workers: immutable values through `Watchable`, followed by `Subscription`. Workers to the
reactor: facts, fire and forget (`reactor.callFromThread`), and what is only looked at when somebody
asks (`RingBuffer`). No thread ever waits for the reactor.
What a worker decides and both sides must see at once (a grant) is noted under the same lock that
guards the published value.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Condition
from typing import Any, Generic, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")
N = TypeVar("N")
R = TypeVar("R")


class Watchable(Generic[T, N]):
    """A value that one thread replaces and others follow, with the notes taken under it."""

    def __init__(self, value: T, noted: Callable[[], object] = lambda: None) -> None:
        """Start with this value, at version 0.

        `noted` is called in the worker's thread with the first note since notes were collected:
        once for a burst, since waking the reactor for each would slow the workers themselves.
        """
        self._changed = Condition()
        self._noted = noted
        self._value = value
        self._version = 0
        self._notes: list[N] = []

    @property
    def value(self) -> T:
        """The latest value."""
        return self._value

    def decide(self, decision: Callable[[T], tuple[R, N | None]]) -> R:
        """Run `decision` on the latest value; its note, if any, is taken in the same instant.

        Called by workers. It holds the lock: it must be quick and must not block.
        """
        with self._changed:
            result, note = decision(self._value)
            first = note is not None and not self._notes
            if note is not None:
                self._notes.append(note)
        if first:
            self._noted()
        return result

    def collect(self) -> list[N]:
        """The notes since the last call, in order."""
        with self._changed:
            notes, self._notes = self._notes, []
            return notes

    def publish(self, value: T, still: Callable[[N], bool]) -> bool:
        """Replace the value, unless a note that was not collected yet would not hold under it.

        False: nothing was published; collect, think again, and try again.
        """
        with self._changed:
            if not all(still(note) for note in self._notes):
                return False
            self._value = value
            self._version += 1
            self._changed.notify_all()
            return True

    def follow(self) -> Subscription[T]:
        """A follower that begins with the value of now."""
        return Subscription(self._changed, lambda: (self._version, self._value))


class Subscription(Generic[T]):
    """Iterates over the values of a `Watchable`: always the latest, bursts coalesced."""

    def __init__(self, changed: Condition, read: Callable[[], tuple[int, T]]) -> None:
        """Made by `Watchable.follow`."""
        self._changed = changed
        self._read = read
        self._closed = False

    def close(self) -> None:
        """End the iteration, also one that waits. From any thread, any number of times."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Each value as it comes; blocks the calling thread in between."""
        seen = -1
        while True:
            with self._changed:
                while not self._closed and self._read()[0] == seen:
                    self._changed.wait()
                if self._closed:
                    return
                seen, value = self._read()
            yield value


class RingBuffer(Generic[T]):
    """The last so many things. Any thread adds to it, and neither adding nor reading ever waits."""

    def __init__(self, most: int) -> None:
        """Keep `most` of them; each one more drops the oldest."""
        self._items: deque[T] = deque(maxlen=most)

    def add(self, item: T) -> None:
        """Keep one more. A deque's append is one step, which no other thread sees half done."""
        self._items.append(item)

    def all(self) -> tuple[T, ...]:
        """Those that are kept, the oldest first."""
        found: tuple[T, ...] | None = None
        while found is None:
            with suppress(RuntimeError):  # another thread added one meanwhile: rare, so look again
                found = tuple(self._items)
        return found


class Future(Protocol[R]):
    """The part of a gRPC future that is used here."""

    def result(self) -> R:
        """The response; raises what the call failed with."""

    def cancel(self) -> bool:
        """End the call."""

    def add_done_callback(self, callback: Callable[[Future[R]], None]) -> None:
        """Call back, in some thread, when the call has ended."""


class Clock(Protocol):
    """The time, and things done later: a part of the reactor, or trial's Clock."""

    def seconds(self) -> float:
        """Seconds of a clock that only goes forward."""

    def callLater(
        self, delay: float, function: Callable[..., Any], /, *args: object
    ) -> IDelayedCall:
        """Call something in `delay` seconds."""


class Reactor(Clock, Protocol):
    """What is used of Twisted's reactor, beside its clock."""

    def callFromThread(self, function: Callable[..., Any], /, *args: object) -> object:
        """Run a function on the reactor: the one method that other threads may use."""

    def getThreadPool(self) -> ThreadPool:
        """The pool for what would block the reactor."""

    def addReader(self, reader: Any, /) -> object:
        """Tell `reader` when there is something to read."""

    def removeReader(self, reader: Any, /) -> object:
        """No longer tell it."""

    def stop(self) -> object:
        """End the process, in order."""


class FolderWatches(Protocol):
    """Where hints come from that something in a folder has changed."""

    def watch(self, folders: Iterable[Path]) -> None:
        """Watch exactly these folders."""

    def close(self) -> None:
        """Watch nothing any more."""


def deferred(reactor: Reactor, future: Future[R]) -> Deferred[R]:
    """A Deferred for a gRPC future; cancelling it cancels the call."""
    result: Deferred[R] = Deferred(lambda _: _ignore(future.cancel()))

    def finish() -> None:
        if result.called:
            return
        try:
            response = future.result()
        except BaseException as problem:  # noqa: BLE001 - a Deferred carries any failure
            result.errback(problem)
        else:
            result.callback(response)

    future.add_done_callback(lambda _: _ignore(reactor.callFromThread(finish)))
    return result


def in_thread(reactor: Reactor, function: Callable[[], R]) -> Deferred[R]:
    """Run what would block the reactor in a thread of its pool; a Deferred for the result."""
    pool = reactor.getThreadPool()
    return deferToThreadPool(cast("IReactorFromThreads", reactor), pool, function)


def _ignore(_: object) -> None:
    """Make a callback of what returns something."""
