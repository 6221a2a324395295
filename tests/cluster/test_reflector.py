"""A list and a watch, and what becomes of it when the server does not play along."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from sgpud.cluster.calls import FIRST_PAUSE, GONE, LONGEST_PAUSE, ApiError
from sgpud.cluster.credentials import CredentialsError
from sgpud.cluster.reflector import APART, STEADY, Reflector, ReflectorObserver
from tests.cluster.answering import AnsweringApi

PATH = "/api/v1/pods"


def listed(*names: str, version: str = "7", more: str = "") -> dict[str, Any]:
    """A list."""
    metadata = {"resourceVersion": version, **({"continue": more} if more else {})}
    return {"metadata": metadata, "items": [{"metadata": {"name": name}} for name in names]}


class Following:
    """A reflector, and what it tells."""

    def __init__(self, *answers: dict[str, Any] | ApiError, page: int = 0) -> None:
        self.clock, self.api = Clock(), AnsweringApi()
        self.api.answers = list(answers)
        self.told: list[Any] = []
        observer = ReflectorObserver(
            lambda items: self.told.append([one["metadata"]["name"] for one in items]),
            lambda kind, found: self.told.append((kind, found["metadata"]["name"])),
            lambda doing, error: self.told.append(f"{doing}: {error}"),
            self.died,
        )
        self.reflector = Reflector(
            self.clock, self.api, PATH, observer, page=page, jitter=lambda: 0.0
        )
        self.reflector.start("spec.nodeName=node-1")

    def died(self, failure: Failure) -> None:
        self.told.append(repr(failure.value))

    def event(self, kind: str, version: str, name: str = "") -> None:
        metadata = {"resourceVersion": version, "name": name}
        self.api.event({"type": kind, "object": {"metadata": metadata}})

    @property
    def versions(self) -> list[str]:
        """From which version each watch began."""
        return [dict(call.query)["resourceVersion"] for call in self.api.watches]


def test_it_lists_then_follows_from_there() -> None:
    seen = Following(listed("a"))
    seen.event("ADDED", "8", "b")
    seen.event("BOOKMARK", "9")
    assert seen.told == [["a"], ("ADDED", "b")]
    assert dict(seen.api.calls[0].query) == {"fieldSelector": "spec.nodeName=node-1"}
    seen.api.watching.callback(None)
    seen.clock.advance(APART)
    assert seen.versions == ["7", "9"]
    assert len(seen.api.calls) == 1


def test_a_watch_that_ends_at_once_is_not_begun_without_end() -> None:
    seen = Following(listed("a"))
    for _ in range(11):
        if not seen.api.watching.called:
            seen.api.watching.callback(None)
        seen.clock.advance(APART / 10)
    assert len(seen.api.watches) == 2


def test_a_long_list_comes_in_pages() -> None:
    seen = Following(listed("a", "b", more="2"), listed("c"), page=2)
    assert seen.told == [["a", "b", "c"]]
    assert dict(seen.api.calls[1].query) == {
        "fieldSelector": "spec.nodeName=node-1",
        "limit": "2",
        "continue": "2",
    }


def test_a_page_that_is_too_old_begins_again() -> None:
    expired = ApiError(GONE, "the continue token is too old")
    seen = Following(listed("a", more="1"), expired, listed("b"), page=1)
    assert seen.told == [["b"]]


def test_a_version_that_is_too_old_lists_again_at_once() -> None:
    seen = Following(listed("a"), listed("b", version="20"))
    seen.api.watching.errback(ApiError(GONE, "too old"))
    assert seen.told == [["a"], ["b"]]
    assert seen.versions == ["7", "20"]


def test_a_server_that_says_too_old_each_time_is_asked_more_seldom() -> None:
    seen = Following(*[listed("a")] * 20)
    for _ in range(4):
        seen.api.watching.errback(ApiError(GONE, "too old"))
        seen.clock.advance(STEADY / 3)
    assert seen.told.count("watch: 410: too old") == 3


def test_a_watch_that_breaks_goes_on_where_it_was() -> None:
    seen = Following(listed("a"))
    seen.event("ADDED", "8", "b")
    seen.clock.advance(STEADY)
    seen.api.watching.errback(ApiError(0, "the watch broke off"))
    assert seen.told[-1] == "watch: the watch broke off"
    seen.clock.advance(FIRST_PAUSE)
    assert seen.versions == ["7", "8"]


def test_errors_are_tried_again_later_and_later() -> None:
    seen = Following()
    seen.told.clear()
    seen.api.errors = [ApiError(500, "no")] * 100
    seen.clock.pump([1.0] * 300)
    assert 9 <= len(seen.told) <= 20
    assert set(seen.told) == {"list: 500: no"}


def test_a_429_is_waited_for_as_long_as_it_says() -> None:
    seen = Following(listed("a"), listed("b"))
    seen.api.watching.errback(ApiError(429, "slow down", 60.0))
    seen.clock.pump([1.0] * 59)
    assert len(seen.api.calls) == 1
    seen.clock.pump([1.0] * 2)
    assert seen.told[-1] == ["b"]


def test_missing_credentials_are_looked_for_again() -> None:
    seen = Following()
    seen.api.errors = [CredentialsError("no token")]
    seen.clock.advance(LONGEST_PAUSE)
    seen.api.answers = [listed("a")]
    seen.clock.advance(LONGEST_PAUSE)
    assert "list: no token" in seen.told
    assert seen.told[-1] == ["a"]


def test_a_stop_ends_it() -> None:
    seen = Following(listed("a"))
    seen.reflector.stop()
    seen.clock.pump([10.0] * 10)
    assert (len(seen.api.watches), seen.told) == (1, [["a"]])
    assert seen.clock.getDelayedCalls() == []
