"""Writes Events as client-go's recorder does: correlated, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock, Timer
from sgpud.cluster.calls import (
    FORBIDDEN,
    MERGE_PATCH,
    NOT_FOUND,
    RIGHTS_AGAIN,
    ApiCall,
    ApiCaller,
    ApiError,
)
from sgpud.cluster.credentials import CredentialsError
from sgpud.core.cluster.events import (
    ClusterEvent,
    Correlation,
    EventWrite,
    correlate,
    event_document,
    event_patch,
    forget,
)

WAITING_AT_MOST = 200
"""Events that wait; the oldest are dropped."""
TRIES = 12
"""How often one is tried where the API server does not answer."""
TRY_AGAIN = 10.0
"""Seconds between two tries."""
_TERMINATING = "being terminated"
"""In the answer for a namespace that is being deleted: it says nothing of rights."""


class EventRecorder:
    """Records Events; one that cannot be written is dropped, and `problem` says why."""

    _log = Logger()

    def __init__(
        self, clock: Clock, api: ApiCaller, wall: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        """`wall`: seconds since the epoch. `changed` is called when `problem` has changed."""
        self.problem = ""
        """Why Events cannot be written, or empty."""
        self.written = 0
        """Writes that succeeded."""
        self.dropped = 0
        """Events that were dropped, for a reason other than that there were too many alike."""
        self._clock = clock
        self._api = api
        self._wall = wall
        self._changed = changed
        self._host = ""
        self._waiting: deque[ClusterEvent] = deque()
        self._state = Correlation()
        self._running: Deferred[None] | None = None
        self._next = Timer(clock)
        self._tries = 0
        self._forbidden_until = float("-inf")
        self._stopped = False

    def start(self, node: str) -> None:
        """Write what waits, and from now on; `node` is the name of this Node."""
        self._host = node
        self._write()

    def record(self, event: ClusterEvent) -> None:
        """Have an Event written soon."""
        if self._stopped:
            return
        if self._clock.seconds() < self._forbidden_until:
            self.dropped += 1
            return
        self._waiting.append(event)
        while len(self._waiting) > WAITING_AT_MOST:
            self._waiting.popleft()
            self.dropped += 1
        self._write()

    def stop(self) -> None:
        """Write no more."""
        self._stopped = True
        self._waiting.clear()
        self._next.cancel()
        if self._running is not None:
            self._running.cancel()

    def _write(self) -> None:
        busy = self._running is not None or self._next.active
        if self._host and self._waiting and not busy and not self._stopped:
            self._running = running = Deferred.fromCoroutine(self._write_all())
            running.addErrback(self._died)
            running.addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._running = None

    async def _write_all(self) -> None:
        while self._waiting and not self._next.active:
            await self._write_oldest()

    async def _write_oldest(self) -> None:
        event = self._waiting.popleft()
        before = self._state
        self._state, write = correlate(before, event, self._wall())
        if write is None:
            return
        try:
            await self._send(write)
        except ApiError as error:
            self._state = before
            self._refused(event, error)
        except CredentialsError as error:
            self._state = before
            self._later(event, str(error))
        else:
            self._tries = 0
            self.written += 1
            self._tell("")

    async def _send(self, write: EventWrite) -> None:
        path = f"/api/v1/namespaces/{write.event.namespace}/events"
        if write.count > 1:
            call = ApiCall("PATCH", f"{path}/{write.name}", (), event_patch(write), MERGE_PATCH)
            try:
                await self._api.call(call)
            except ApiError as error:
                if error.status != NOT_FOUND:
                    raise
            else:
                return
            # It has expired; an API server keeps Events for an hour.
            self._state = forget(self._state, write)
            self._state, fresh = correlate(self._state, write.event, self._wall())
            if fresh is None:
                return
            write = fresh
        await self._api.call(ApiCall("POST", path, (), event_document(write, self._host)))

    def _refused(self, event: ClusterEvent, error: ApiError) -> None:
        if error.passing:
            self._later(event, str(error), error.retry_after)
            return
        self.dropped += 1
        self._tries = 0
        if error.status == FORBIDDEN and _TERMINATING not in error.problem:
            self.dropped += len(self._waiting)
            self._waiting.clear()
            self._forbidden_until = self._clock.seconds() + RIGHTS_AGAIN
            self._tell(f"cannot write Events: {error}")

    def _later(self, event: ClusterEvent, problem: str, retry_after: float = 0.0) -> None:
        self._tries += 1
        if self._tries >= TRIES:
            self._tries = 0
            self.dropped += 1
        else:
            self._waiting.appendleft(event)
        self._tell(f"cannot write Events: {problem}")
        self._next.set(max(TRY_AGAIN, retry_after), self._write)

    def _tell(self, problem: str) -> None:
        if problem == self.problem:
            return
        if problem:
            self._log.warn("{problem}", problem=problem)
        else:
            self._log.info("Events can be written again")
        self.problem = problem
        self._changed()

    def _died(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("An Event could not be written", failure)
            self._next.set(TRY_AGAIN, self._write)
