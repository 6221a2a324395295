"""An API server of one test: it answers at once what the test has told it to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from sgpud.cluster.calls import ApiCall, ApiError
from sgpud.cluster.credentials import CredentialsError


class AnsweringApi:
    """Keeps what it is asked; errors first, then answers, then an empty object."""

    def __init__(self) -> None:
        self.calls: list[ApiCall] = []
        self.errors: list[ApiError | CredentialsError] = []
        self.answers: list[dict[str, Any] | ApiError] = []
        self.held: Deferred[None] | None = None
        """What each call waits for, where a test has it."""
        self.watches: list[ApiCall] = []
        self.event: Callable[[dict[str, Any]], None] = lambda _: None
        self.watching: Deferred[None] = Deferred()

    async def call(self, call: ApiCall) -> dict[str, Any]:
        self.calls.append(call)
        if self.held is not None:
            await self.held
        if self.errors:
            raise self.errors.pop(0)
        answer = self.answers.pop(0) if self.answers else {}
        if isinstance(answer, ApiError):
            raise answer
        return answer

    async def watch(self, call: ApiCall, event: Callable[[dict[str, Any]], None]) -> None:
        self.watches.append(call)
        self.event, self.watching = event, Deferred()
        await self.watching
