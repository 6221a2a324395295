"""The bridge between the reactor and gRPC's worker threads: traffic goes one way.

Reactor to workers: immutable values through `Watchable`, read through a `Subscription`. Workers to
the reactor: facts, fire and forget (`reactor.callFromThread`), and records that are read only on
request (`RingBuffer`). No thread ever waits for the reactor.
A worker's decision that both sides must see at once (a grant) is noted under the lock that guards
the published value.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Condition
from typing import Any, Generic, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")
N = TypeVar("N")
R = TypeVar("R")


class Watchable(Generic[T, N]):
    """A value that one thread replaces and others watch, and the notes that they leave on it."""

    def __init__(self, value: T, on_note: Callable[[], object] = lambda: None) -> None:
        """Start with this value, at version 0.

        `on_note` is called in the worker's thread for the first note since notes were collected:
        once per burst, because waking the reactor for each note would slow the workers down.
        """
        self._changed = Condition()
        self._on_note = on_note
        self._value = value
        self._version = 0
        self._notes: list[N] = []

    @property
    def value(self) -> T:
        """The latest value."""
        return self._value

    def decide(self, decision: Callable[[T], tuple[R, Sequence[N]]]) -> R:
        """Run `decision` on the latest value and add its notes atomically.

        Called by workers. It holds the lock: it must be quick and must not block. A decision that
        raises leaves no note.
        """
        with self._changed:
            result, notes = decision(self._value)
            first = bool(notes) and not self._notes
            self._notes += notes
        if first:
            self._on_note()
        return result

    def collect(self) -> list[N]:
        """The notes since the last call, in order."""
        with self._changed:
            notes, self._notes = self._notes, []
            return notes

    def publish(self, value: T, holds: Callable[[N], bool]) -> bool:
        """Replace the value, unless a note that is not collected yet would not hold for it.

        False: nothing was published; collect the notes and try again with a new value.
        """
        with self._changed:
            if not all(holds(note) for note in self._notes):
                return False
            self._value = value
            self._version += 1
            self._changed.notify_all()
            return True

    def subscribe(self) -> Subscription[T]:
        """A subscription that starts with the current value."""
        return Subscription(self._changed, lambda: (self._version, self._value))


class Subscription(Generic[T]):
    """Iterates over the values of a `Watchable`: always the latest, bursts coalesced."""

    def __init__(self, changed: Condition, read: Callable[[], tuple[int, T]]) -> None:
        """Made by `Watchable.subscribe`."""
        self._changed = changed
        self._read = read
        self._closed = False

    def close(self) -> None:
        """End the iteration, even while it waits. From any thread, any number of times."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Each value as it is published; blocks the calling thread in between."""
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
    """The last items added. Any thread may add, and neither adding nor reading ever waits."""

    def __init__(self, capacity: int) -> None:
        """Keep `capacity` items; adding another drops the oldest."""
        self._items: deque[T] = deque(maxlen=capacity)

    def add(self, item: T) -> None:
        """Add an item. A deque's append is atomic: no other thread sees it half done."""
        self._items.append(item)

    def all(self) -> tuple[T, ...]:
        """The items that are kept, oldest first."""
        found: tuple[T, ...] | None = None
        while found is None:
            with suppress(RuntimeError):  # another thread added one meanwhile: rare, so read again
                found = tuple(self._items)
        return found


class OneAtATime:
    """Does one thing at a time, and once more after it where it was asked for meanwhile.

    For the reactor's thread. However often it is asked for, there is never a queue.
    """

    _log = Logger()

    def __init__(self, do: Callable[[], Deferred[Any]]) -> None:
        """`do` begins it; it is over when the Deferred fires."""
        self._do = do
        self.busy = False
        """Whether it is being done."""
        self._again = False
        self._stopped = False
        self._idle: list[Deferred[None]] = []

    def request(self) -> None:
        """Have it done, from the beginning, as soon as it is not being done already."""
        if self._stopped:
            return
        if self.busy:
            self._again = True
            return
        self.busy = True
        maybeDeferred(self._do).addErrback(self._failed).addCallback(self._done)

    def idle(self) -> Deferred[None]:
        """Fires when it is not being done, and nobody has asked for it again."""
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        self._tell_idle()
        return idle

    def stop(self) -> None:
        """Begin it no more; what is being done comes to its end."""
        self._stopped = True
        self._again = False

    def _failed(self, failure: Failure) -> None:
        self._log.failure("Unexpected error in the background", failure)

    def _done(self, _: object) -> None:
        self.busy = False
        again, self._again = self._again, False
        if again:
            self.request()
        self._tell_idle()

    def _tell_idle(self) -> None:
        if not self.busy:
            idle, self._idle = self._idle, []
            for one in idle:
                one.callback(None)


class Future(Protocol[R]):
    """The part of a gRPC future that sgpud uses."""

    def result(self) -> R:
        """The response; raises the call's error."""

    def cancel(self) -> bool:
        """End the call."""

    def add_done_callback(self, callback: Callable[[Future[R]], None]) -> None:
        """Call back, from any thread, when the call has ended."""


class Clock(Protocol):
    """The time and delayed calls: a part of the reactor, or trial's Clock."""

    def seconds(self) -> float:
        """Seconds of a monotonic clock."""

    def callLater(
        self, delay: float, function: Callable[..., Any], /, *args: object
    ) -> IDelayedCall:
        """Call a function in `delay` seconds."""


class Timer:
    """One call later, at most: setting it again replaces the former."""

    def __init__(self, clock: Clock) -> None:
        """Nothing is to come yet."""
        self._clock = clock
        self._call: IDelayedCall | None = None

    def set(self, delay: float, function: Callable[[], Any]) -> None:
        """Call the function in `delay` seconds, and nothing that was set before."""
        self.cancel()
        self._call = self._clock.callLater(delay, function)

    def at_most(self, delay: float, function: Callable[[], Any]) -> None:
        """Call the function in `delay` seconds, unless a call comes sooner."""
        if not self.active or self._due() > self._clock.seconds() + delay:
            self.set(delay, function)

    @property
    def active(self) -> bool:
        """Whether a call is to come."""
        return self._call is not None and self._call.active()

    def cancel(self) -> None:
        """Call nothing."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _due(self) -> float:
        return self._call.getTime() if self._call is not None else 0.0


class Reactor(Clock, Protocol):
    """The part of Twisted's reactor that sgpud uses."""

    def callFromThread(self, function: Callable[..., Any], /, *args: object) -> object:
        """Run a function on the reactor: the only method that other threads may call."""

    def getThreadPool(self) -> ThreadPool:
        """The thread pool for work that would block the reactor."""

    def addReader(self, reader: Any, /) -> object:
        """Notify `reader` when there is something to read."""

    def removeReader(self, reader: Any, /) -> object:
        """Stop notifying `reader`."""

    def stop(self) -> object:
        """Shut the process down cleanly."""


class Debounce:
    """Calls a function when a burst of requests is over, or has lasted for too long."""

    def __init__(
        self, clock: Clock, function: Callable[[], object], settle: float, most: float = 1.0
    ) -> None:
        """`settle`: seconds without a request that end a burst; `most`: seconds that one may last.

        Without the second bound a steady stream of requests would never come to anything.
        """
        self._clock = clock
        self._function = function
        self._settle = settle
        self._most = most
        self._latest = 0.0
        self._timer = Timer(clock)

    def request(self) -> None:
        """Have the function called soon."""
        now = self._clock.seconds()
        if not self._timer.active:
            self._latest = now + self._most
        self._timer.set(max(0.0, min(self._settle, self._latest - now)), self._function)

    def cancel(self) -> None:
        """Forget what was requested."""
        self._timer.cancel()


class FolderWatches(Protocol):
    """A source of events: something in a folder may have changed."""

    def watch(self, folders: Iterable[Path]) -> None:
        """Watch exactly these folders."""

    def close(self) -> None:
        """Stop watching."""


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
    """Run a blocking function in a thread of the reactor's pool; a Deferred for its result."""
    pool = reactor.getThreadPool()
    return deferToThreadPool(cast("IReactorFromThreads", reactor), pool, function)


def _ignore(_: object) -> None:
    """Discard a result, for callbacks that must return None."""
