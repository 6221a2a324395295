"""Calls to the API server, and how they fail; who makes them is `client`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from attrs import frozen

from sgpud.core.errors import SgpudError

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, GONE, TOO_MANY = 401, 403, 404, 409, 410, 429
SERVER_ERROR = 500
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
"""It merges lists by their keys, e.g. conditions by their type."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between tries: doubled, and up to half as much again at random."""
RIGHTS_AGAIN = 300.0
"""Seconds until something is tried again for which rights were missing."""


class ApiError(SgpudError):
    """A call that the API server refused, or that did not reach it."""

    def __init__(self, status: int, problem: str, retry_after: float = 0.0) -> None:
        """`status`: of HTTP; 0: no answer. `retry_after`: seconds that the server asks for."""
        super().__init__(status, problem, retry_after)
        self.status, self.problem, self.retry_after = status, problem, retry_after

    def __str__(self) -> str:
        """The status and what the server said."""
        return f"{self.status}: {self.problem}" if self.status else self.problem

    @property
    def passing(self) -> bool:
        """Whether the same call can succeed later: the server is away or has too much to do."""
        return not self.status or self.status == TOO_MANY or self.status >= SERVER_ERROR


@frozen
class ApiCall:
    """One request."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: Mapping[str, Any] | None = None
    content_type: str = JSON
    """Of the body."""


class ApiCaller(Protocol):
    """The API server, for single calls."""

    async def call(self, call: ApiCall) -> dict[str, Any]:
        """The object that it answers; ApiError or CredentialsError."""


class ApiWatcher(ApiCaller, Protocol):
    """The API server, for watches as well."""

    async def watch(self, call: ApiCall, event: Callable[[dict[str, Any]], None]) -> None:
        """Tell each event until the watch ends."""


def pause(failures: int, jitter: float) -> float:
    """Seconds until the next try after so many failures; `jitter` is 0 to 1."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10)) * (1 + jitter / 2)
