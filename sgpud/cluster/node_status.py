"""Writes to the status of this Node: a condition, and numbers sooner than the kubelet does.

Both are patches of single entries: nothing else in the status is read or written.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock, Timer
from sgpud.cluster.calls import (
    LONGEST_PAUSE,
    MERGE_PATCH,
    RIGHTS_AGAIN,
    STRATEGIC_MERGE_PATCH,
    ApiCall,
    ApiCaller,
    ApiError,
    pause,
)
from sgpud.cluster.credentials import CredentialsError
from sgpud.core.cluster.conditions import CONDITION, NodeCondition, condition_document

HEARTBEAT = 300.0
"""Seconds after which the condition is written again: the Node may have been made anew."""
PATCHES_APART = 0.2
"""Seconds between two patches of the numbers at least."""


class NodeStatusWriter:
    """Makes one write after the other, and again where one fails; `problem` says why."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        changed: Callable[[], None],
        what: str,
        apart: float,
        write: Callable[[], Deferred[float | None]],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`write` begins one; it gives the seconds until the next, or None for when it is asked.

        `what` is what cannot be written, in words; `apart` seconds are between two writes at least.
        """
        self.problem = ""
        self.writes = 0
        self._clock = clock
        self._changed = changed
        self._what = what
        self._apart = apart
        self._write = write
        self._jitter = jitter
        self._next = Timer(clock)
        self._running: Deferred[Any] | None = None
        self._again = False
        self._failures = 0
        self._not_before = float("-inf")
        self._stopped = False

    def request(self, delay: float = 0.0) -> None:
        """Write within `delay` seconds, or as soon as may be."""
        if self._stopped:
            return
        if self._running is not None:
            self._again = True
            return
        self._next.at_most(max(delay, self._not_before - self._clock.seconds()), self._begin)

    def stop(self) -> None:
        """Write no more."""
        self._stopped = True
        self._next.cancel()
        if self._running is not None:
            self._running.cancel()

    def _begin(self) -> None:
        self._not_before = self._clock.seconds() + self._apart
        self._again = False
        self._running = running = self._write()
        running.addCallbacks(self._done, self._failed)
        running.addErrback(self._died)
        running.addBoth(self._ended)

    def _done(self, delay: float | None) -> float | None:
        self._failures = 0
        self.writes += 1
        self._tell("")
        return delay

    def _failed(self, failure: Failure) -> float:
        failure.trap(ApiError, CredentialsError)
        error = failure.value
        self._failures += 1
        wait = pause(self._failures, self._jitter())
        if isinstance(error, ApiError):
            wait = max(error.retry_after, wait if error.passing else RIGHTS_AGAIN)
        self._not_before = self._clock.seconds() + wait
        self._tell(f"cannot write {self._what}: {error}")
        return wait

    def _died(self, failure: Failure) -> float | None:
        if failure.check(CancelledError):
            return None
        self._log.failure("Writing {what} failed", failure, what=self._what)
        self._not_before = self._clock.seconds() + LONGEST_PAUSE
        return LONGEST_PAUSE

    def _ended(self, delay: float | None) -> None:
        self._running = None
        if self._again:
            self.request()
        elif delay is not None:
            self.request(delay)

    def _tell(self, problem: str) -> None:
        if problem == self.problem:
            return
        if problem:
            self._log.warn("{problem}", problem=problem)
        else:
            self._log.info("It can be written again: {what}", what=self._what)
        self.problem = problem
        self._changed()


class ConditionWriter:
    """Keeps the condition SharedGPUUnhealthy of this Node as it should be."""

    def __init__(
        self,
        clock: Clock,
        api: ApiCaller,
        wall: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        """`wall`: seconds since the epoch."""
        self._api = api
        self._wall = wall
        self._node = ""
        self._wanted: NodeCondition | None = None
        self._known: Mapping[str, Any] | None = None
        """What the Node has, once it was read."""
        self.writer = NodeStatusWriter(
            clock,
            changed,
            f"the condition {CONDITION}",
            1.0,
            lambda: Deferred.fromCoroutine(self._write()),
        )

    def start(self, node: str) -> None:
        """Write it, once it is known."""
        self._node = node
        if self._wanted is not None:
            self.writer.request()

    def set(self, condition: NodeCondition) -> None:
        """What it should say."""
        if condition != self._wanted:
            self._wanted = condition
            if self._node:
                self.writer.request()

    async def _write(self) -> float | None:
        path = f"/api/v1/nodes/{self._node}"
        if self._known is None:
            node = await self._api.call(ApiCall("GET", path))
            conditions = (node.get("status") or {}).get("conditions") or ()
            self._known = next((one for one in conditions if one.get("type") == CONDITION), {})
        assert self._wanted is not None  # noqa: S101 - since it was requested
        document = condition_document(self._wanted, self._known, self._wall())
        await self._api.call(
            ApiCall("PATCH", f"{path}/status", (), document, STRATEGIC_MERGE_PATCH)
        )
        self._known = document["status"]["conditions"][0]
        return HEARTBEAT


class AllocatableWriter:
    """Has the Node show the numbers that the kubelet reports seconds later.

    Only numbers that the kubelet's own books show, and only those that have changed.
    """

    def __init__(self, clock: Clock, api: ApiCaller, changed: Callable[[], None]) -> None:
        """Nothing is written before `start`."""
        self._api = api
        self._node = ""
        self._agreed: Mapping[str, int] = {}
        self._shown: dict[str, int] = {}
        """What the Node is taken to show: what the kubelet reported first, or what was written."""
        self.writer = NodeStatusWriter(
            clock,
            changed,
            "the allocatable shares",
            PATCHES_APART,
            lambda: Deferred.fromCoroutine(self._write()),
        )

    def start(self, node: str) -> None:
        """Write from now on."""
        self._node = node

    def agreed(self, numbers: Mapping[str, int]) -> None:
        """The numbers, by resource, on which the kubelet's books and sgpud's list agree now.

        Of a resource that is missing nothing is written, nor is its next number a change.
        """
        self._agreed = numbers
        self._shown = {
            resource: self._shown.get(resource, number) for resource, number in numbers.items()
        }
        if self._node and self._changes():
            self.writer.request()

    def _changes(self) -> dict[str, int]:
        return {
            resource: number
            for resource, number in self._agreed.items()
            if number != self._shown[resource]
        }

    async def _write(self) -> float | None:
        changes = self._changes()
        if changes:
            body = {"status": {"allocatable": {name: str(one) for name, one in changes.items()}}}
            path = f"/api/v1/nodes/{self._node}/status"
            await self._api.call(ApiCall("PATCH", path, (), body, MERGE_PATCH))
            self._shown.update({name: one for name, one in changes.items() if name in self._shown})
        return None
