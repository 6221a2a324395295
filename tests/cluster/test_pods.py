"""The pods of this node, followed: what is told, and what is said where it fails."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from sgpud.cluster.calls import LONGEST_PAUSE, ApiError
from sgpud.cluster.pods import PAGE, PodWatcher
from sgpud.core.cluster.pods import PodsChange
from tests.cluster.answering import AnsweringApi


def pod(name: str, phase: str = "Running") -> dict[str, Any]:
    metadata = {"uid": f"uid-{name}", "namespace": "ns", "name": name, "resourceVersion": "8"}
    return {"metadata": metadata, "status": {"phase": phase}}


def listing(*pods: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"resourceVersion": "7"}, "items": list(pods)}


class Watching:
    """A watcher, and what it tells."""

    def __init__(self, *answers: dict[str, Any] | ApiError) -> None:
        self.clock, self.api = Clock(), AnsweringApi()
        self.api.answers = list(answers)
        self.told: list[PodsChange] = []
        self.problems: list[str] = []
        self.watcher = PodWatcher(
            self.clock,
            self.api,
            self.told.append,
            lambda: self.problems.append(self.watcher.problem),
        )
        self.watcher.start("node-1")

    def event(self, kind: str, found: dict[str, Any]) -> None:
        self.api.event({"type": kind, "object": found})


def test_names_and_ends_are_told() -> None:
    seen = Watching(listing(pod("a"), pod("b")))
    assert dict(seen.api.calls[0].query) == {
        "fieldSelector": "spec.nodeName=node-1",
        "limit": str(PAGE),
    }
    seen.event("MODIFIED", pod("a", "Succeeded"))
    seen.event("DELETED", pod("b"))
    assert [change.ended for change in seen.told] == [frozenset(), {"uid-a"}, {"uid-b"}]
    assert set(seen.watcher.pods) == {"uid-a"}
    assert seen.watcher.following


def test_what_does_not_concern_anybody_is_not_told() -> None:
    seen = Watching(listing(pod("a")))
    for _ in range(5):
        seen.event("MODIFIED", pod("a"))
    assert len(seen.told) == 1


def test_a_problem_is_said_and_so_is_its_end() -> None:
    seen = Watching(ApiError(403, "pods is forbidden"), listing(pod("a")))
    assert seen.problems == ["cannot list the pods of this node: 403: pods is forbidden"]
    assert not seen.watcher.following
    seen.clock.advance(LONGEST_PAUSE)
    assert seen.problems[1:] == [""]
    assert seen.watcher.following


def test_who_ended_while_the_server_was_away_is_told_afterwards() -> None:
    seen = Watching(listing(pod("a"), pod("b")), listing(pod("b")))
    seen.api.watching.errback(ApiError(410, "too old"))
    seen.clock.advance(LONGEST_PAUSE)
    assert seen.told[-1].ended == {"uid-a"}


def test_something_that_is_no_pod_is_refused_and_listed_again() -> None:
    seen = Watching({"metadata": {"resourceVersion": "7"}, "items": [{"kind": "Status"}]})
    assert "the list of /api/v1/pods is invalid" in seen.problems[0]
    seen.api.answers = [listing(pod("a"))]
    seen.clock.advance(LONGEST_PAUSE)
    assert seen.watcher.following
