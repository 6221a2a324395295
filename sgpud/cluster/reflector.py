"""Lists objects and follows their changes by a watch, for as long as it takes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from sgpud.bridge import Clock
from sgpud.cluster.calls import GONE, ApiCall, ApiError, ApiWatcher, pause
from sgpud.cluster.credentials import CredentialsError

WATCH_FOR = 300
"""Seconds after which the server ends a watch."""
STEADY = 30.0
"""Seconds that a watch has to last for the failures before it to be forgotten."""
APART = 1.0
"""Seconds between the beginnings of two watches at least, where the first ended in order."""
INVALID = (KeyError, TypeError, ValueError, AttributeError)


@frozen
class ReflectorObserver:
    """Callbacks of a reflector. One that raises KeyError, TypeError or ValueError refuses."""

    listed: Callable[[list[dict[str, Any]]], None]
    """All objects there are."""
    changed: Callable[[str, dict[str, Any]], None]
    """ADDED, MODIFIED or DELETED, and the object."""
    failed: Callable[[str, ApiError | CredentialsError], None]
    """`list` or `watch` has failed; it is tried again."""
    died: Callable[[Failure], None]
    """It does not run any more, because of a fault of its own."""


class Reflector:
    """Follows the objects of one path that a field selector selects."""

    def __init__(
        self,
        clock: Clock,
        api: ApiWatcher,
        path: str,
        observer: ReflectorObserver,
        *,
        page: int = 0,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`page`: objects of one answer; 0: all. `jitter` gives 0 to 1."""
        self._clock = clock
        self._api = api
        self._path = path
        self._observer = observer
        self._page = page
        self._jitter = jitter
        self._selector = ""
        self._version = ""
        self._is_listed = False
        self._running: Deferred[None] | None = None
        self._stopped = False

    def start(self, selector: str) -> None:
        """Follow what this field selector selects."""
        if self._running is None and not self._stopped:
            self._selector = selector
            self._running = Deferred.fromCoroutine(self._follow())
            self._running.addErrback(self._died)

    def stop(self) -> None:
        """Follow no more."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()

    async def list(self) -> None:
        """List everything now, and tell it; ApiError or CredentialsError."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            query = [("fieldSelector", self._selector)]
            if self._page:
                query.append(("limit", str(self._page)))
            if token:
                query.append(("continue", token))
            answer = await self._api.call(ApiCall("GET", self._path, tuple(query)))
            try:
                found += answer.get("items") or ()
                version = str(answer["metadata"]["resourceVersion"])
                token = str(answer["metadata"].get("continue") or "")
                if not token:
                    self._observer.listed(found)
                    self._version, self._is_listed = version, True
                    return
            except INVALID as error:
                raise ApiError(0, f"the list of {self._path} is invalid: {error}") from error

    async def _follow(self) -> None:
        failures = 0
        while not self._stopped:
            began, doing = self._clock.seconds(), "list"
            try:
                if not self._is_listed:
                    await self.list()
                doing = "watch"
                await self._api.watch(self._watch_call(), self._event)
                failures = 0
                wait = began + APART - self._clock.seconds()
            except ApiError as error:
                if self._clock.seconds() - began >= STEADY:
                    failures = 0
                failures += 1
                if error.status:
                    # What was missed meanwhile is not sent any more.
                    self._is_listed = False
                if error.status == GONE and failures == 1:
                    continue
                self._observer.failed(doing, error)
                wait = max(error.retry_after, pause(failures, self._jitter()))
            except CredentialsError as error:
                failures += 1
                self._observer.failed(doing, error)
                wait = pause(failures, self._jitter())
            if wait > 0:
                await deferLater(self._clock, wait)  # type: ignore[arg-type]

    def _watch_call(self) -> ApiCall:
        query = (
            ("fieldSelector", self._selector),
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", str(WATCH_FOR)),
        )
        return ApiCall("GET", self._path, query)

    def _event(self, event: dict[str, Any]) -> None:
        kind, found = event["type"], event["object"]
        if kind == "ERROR":
            raise ApiError(int(found.get("code", 0)), str(found.get("message", "")))
        version = str(found["metadata"]["resourceVersion"])
        if kind != "BOOKMARK":
            self._observer.changed(kind, found)
        self._version = version

    def _died(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._observer.died(failure)
