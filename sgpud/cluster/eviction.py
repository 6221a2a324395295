"""Evicts pods by the Eviction API, which honours their PodDisruptionBudgets."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from enum import Enum

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Clock, Timer
from sgpud.cluster.calls import (
    CONFLICT,
    FORBIDDEN,
    NOT_FOUND,
    RIGHTS_AGAIN,
    TOO_MANY,
    ApiCall,
    ApiCaller,
    ApiError,
)
from sgpud.cluster.credentials import CredentialsError
from sgpud.core.cluster.events import ObjectReference

FIRST_AGAIN, LONGEST_AGAIN = 5.0, 60.0
"""Seconds between two tries for one pod: kubectl drain tries every 5 s."""
AGAIN = 300.0
"""Seconds until a pod that was evicted, and is still to be, is evicted again."""


class EvictionResult(Enum):
    """How far the eviction of a pod is."""

    WAITING = "waiting"
    """Not tried yet."""
    BLOCKED = "blocked"
    """By a PodDisruptionBudget; it is tried again."""
    FAILED = "failed"
    """Not tried successfully; it is tried again."""
    FORBIDDEN = "forbidden"
    """The rights are missing: create on pods/eviction."""
    EVICTED = "evicted"
    """It is being deleted, or gone."""


@frozen
class Eviction:
    """The eviction of one pod."""

    pod: ObjectReference
    why: str
    result: EvictionResult = EvictionResult.WAITING
    problem: str = ""
    """What the API server said, where it was not done."""
    tries: int = 0
    due: float = 0.0
    """When it is tried next, in monotonic seconds."""


class Evictor:
    """Evicts pods one after the other, until it gets another list of them."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        api: ApiCaller,
        changed: Callable[[Eviction], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`changed` is told each change of a result; `jitter` gives 0 to 1."""
        self._clock = clock
        self._api = api
        self._changed = changed
        self._jitter = jitter
        self._wanted: dict[ObjectReference, Eviction] = {}
        self._running: Deferred[None] | None = None
        self._next = Timer(clock)
        self._stopped = False

    @property
    def evictions(self) -> tuple[Eviction, ...]:
        """How far each is."""
        return tuple(self._wanted.values())

    @property
    def problem(self) -> str:
        """Why pods that are to be evicted are not, or empty."""
        open_still = [
            one for one in self._wanted.values() if one.result is not EvictionResult.EVICTED
        ]
        told = next((one for one in open_still if one.problem), None)
        return f"cannot evict pod {told.pod.named}: {told.problem}" if told else ""

    def evict(self, pods: Mapping[ObjectReference, str]) -> None:
        """Evict these pods, each for its reason, and no others.

        Each needs its UID: another pod of the same name is left alone.
        """
        now = self._clock.seconds()
        self._wanted = {
            pod: evolve(self._wanted.get(pod, Eviction(pod, why, due=now)), why=why)
            for pod, why in pods.items()
        }
        self._enqueue()

    def stop(self) -> None:
        """Evict no more."""
        self._stopped = True
        self._next.cancel()
        if self._running is not None:
            self._running.cancel()

    def _enqueue(self) -> None:
        self._next.cancel()
        if self._running is None and not self._stopped and self._wanted:
            due = min(one.due for one in self._wanted.values())
            self._next.set(max(0.0, due - self._clock.seconds()), self._try)

    def _try(self) -> None:
        first = min(self._wanted.values(), key=lambda one: one.due)
        self._running = running = Deferred.fromCoroutine(self._evict(first))
        running.addErrback(self._died)
        running.addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._running = None
        self._enqueue()

    async def _evict(self, one: Eviction) -> None:
        pod = one.pod
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction"
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        try:
            await self._api.call(ApiCall("POST", path, (), body))
        except ApiError as error:
            self._refused(one, error)
        except CredentialsError as error:
            self._told(one, EvictionResult.FAILED, str(error), self._later(one))
        else:
            self._told(one, EvictionResult.EVICTED, "", AGAIN)

    def _refused(self, one: Eviction, error: ApiError) -> None:
        if error.status in (NOT_FOUND, CONFLICT):
            self._told(one, EvictionResult.EVICTED, "", AGAIN)  # gone, or another of this name
        elif error.status == TOO_MANY:
            again = max(error.retry_after, self._later(one))
            self._told(one, EvictionResult.BLOCKED, error.problem, again)
        elif error.status == FORBIDDEN:
            self._told(one, EvictionResult.FORBIDDEN, str(error), RIGHTS_AGAIN)
        else:
            self._told(one, EvictionResult.FAILED, str(error), self._later(one))

    def _later(self, one: Eviction) -> float:
        wait = min(LONGEST_AGAIN, FIRST_AGAIN * 2.0 ** min(one.tries, 10))
        return wait * (1 + self._jitter() / 2)

    def _told(self, one: Eviction, result: EvictionResult, problem: str, again: float) -> None:
        if one.pod not in self._wanted:
            return  # it is not to be evicted any more
        before = self._wanted[one.pod]
        now = evolve(
            before,
            result=result,
            problem=problem,
            tries=before.tries + 1,
            due=self._clock.seconds() + again,
        )
        self._wanted[one.pod] = now
        if (now.result, now.problem) == (before.result, before.problem):
            return
        if result is EvictionResult.EVICTED:
            self._log.warn("Evicted pod {pod}: {why}", pod=one.pod.named, why=now.why)
        else:
            self._log.warn(
                "Cannot evict pod {pod} ({why}): {problem}. Trying again in {again:.0f} s",
                pod=one.pod.named,
                why=now.why,
                problem=problem,
                again=again,
            )
        self._changed(now)

    def _died(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("An eviction failed", failure)
            later = self._clock.seconds() + LONGEST_AGAIN
            self._wanted = {pod: evolve(one, due=later) for pod, one in self._wanted.items()}
