"""The recorder of Events: what it sends, and what it does where that fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from sgpud.cluster.calls import MERGE_PATCH, RIGHTS_AGAIN, ApiCall, ApiError
from sgpud.cluster.credentials import CredentialsError
from sgpud.cluster.events import TRIES, TRY_AGAIN, WAITING_AT_MOST, EventRecorder
from sgpud.core.cluster.events import ClusterEvent, node_reference, pod_reference
from tests.cluster.answering import AnsweringApi

NODE = node_reference("node-1")
POD = pod_reference("ns", "pod", "uid")


def recording(*, start: bool = True) -> tuple[Clock, AnsweringApi, EventRecorder]:
    """A recorder, started unless the test says otherwise."""
    clock, api = Clock(), AnsweringApi()
    recorder = EventRecorder(clock, api, lambda: 1.7e9 + clock.seconds(), lambda: None)
    if start:
        recorder.start("node-1")
    return clock, api, recorder


def sick(message: str = "a") -> ClusterEvent:
    return ClusterEvent(NODE, "Sick", message)


def test_an_event_is_created_and_the_same_one_is_patched() -> None:
    _, api, recorder = recording()
    for about in (NODE, POD, NODE):
        recorder.record(ClusterEvent(about, "Sick", "a"))
    assert [(call.method, call.path.rpartition("/")[0]) for call in api.calls[:2]] == [
        ("POST", "/api/v1/namespaces/default"),
        ("POST", "/api/v1/namespaces/ns"),
    ]
    first, _, third = api.calls
    assert third.method == "PATCH"
    assert third.content_type == MERGE_PATCH
    assert first.body is not None
    assert third.body is not None
    assert third.path.rpartition("/")[2] == first.body["metadata"]["name"]
    assert third.body["count"] == 2
    assert recorder.written == 3


def test_what_came_before_the_name_of_the_node_waits_for_it() -> None:
    _, api, recorder = recording(start=False)
    recorder.record(sick())
    assert api.calls == []
    recorder.start("node-1")
    assert len(api.calls) == 1


def test_one_is_written_after_the_other() -> None:
    _, api, recorder = recording()
    held: Deferred[None] = Deferred()
    api.held = held
    recorder.record(sick("a"))
    recorder.record(sick("b"))
    assert len(api.calls) == 1
    api.held = None
    held.callback(None)
    assert len(api.calls) == 2


def test_one_that_has_expired_is_created_again() -> None:
    _, api, recorder = recording()
    recorder.record(sick())
    api.errors = [ApiError(404, "not found")]
    recorder.record(sick())
    assert [call.method for call in api.calls] == ["POST", "PATCH", "POST"]
    assert api.calls[2].body is not None
    assert api.calls[2].body["count"] == 1
    recorder.record(sick())
    assert api.calls[3].path.endswith(api.calls[2].body["metadata"]["name"])


@pytest.mark.parametrize(
    "error", [ApiError(0, "no answer"), ApiError(503, "away"), CredentialsError("no token")]
)
def test_where_the_server_is_away_it_is_tried_again_and_given_up_one_day(
    error: ApiError | CredentialsError,
) -> None:
    clock, api, recorder = recording()
    api.errors = [error] * (TRIES + 1)
    recorder.record(sick("lost"))
    assert recorder.problem
    recorder.record(sick("later"))
    assert len(api.calls) == 1  # not before TRY_AGAIN
    clock.pump([TRY_AGAIN] * (TRIES + 2))
    assert len(api.calls) == TRIES + 2
    assert (recorder.dropped, recorder.written, recorder.problem) == (1, 1, "")
    assert api.calls[-1].body is not None
    assert (api.calls[-1].body["message"], api.calls[-1].body["count"]) == ("later", 1)


def test_a_429_is_waited_for_as_long_as_it_says() -> None:
    clock, api, recorder = recording()
    api.errors = [ApiError(429, "slow down", 42.0)]
    recorder.record(sick())
    clock.advance(41)
    assert len(api.calls) == 1
    clock.advance(2)
    assert recorder.written == 1


def test_without_rights_it_says_so_once_and_looks_again_rarely() -> None:
    clock, api, recorder = recording()
    api.errors = [ApiError(403, "no")] * 2
    for _ in range(100):
        recorder.record(sick())
        clock.advance(RIGHTS_AGAIN / 101)
    assert len(api.calls) == 1
    assert recorder.problem == "cannot write Events: 403: no"
    clock.advance(RIGHTS_AGAIN)
    recorder.record(sick())
    clock.advance(RIGHTS_AGAIN)
    recorder.record(sick())
    assert (len(api.calls), recorder.problem, recorder.written) == (3, "", 1)


@pytest.mark.parametrize(
    ("status", "problem"),
    [(403, "forbidden: namespace ns is being terminated"), (404, "no namespace"), (422, "bad")],
)
def test_one_that_the_server_does_not_take_is_dropped_alone(status: int, problem: str) -> None:
    _, api, recorder = recording()
    api.errors = [ApiError(status, problem)]
    recorder.record(ClusterEvent(POD, "Refused", "a"))
    recorder.record(sick())
    assert (recorder.dropped, recorder.written, recorder.problem) == (1, 1, "")


def test_what_waits_is_bounded() -> None:
    _, api, recorder = recording(start=False)
    for number in range(WAITING_AT_MOST + 50):
        pod = pod_reference("ns", f"pod-{number}", "uid")
        recorder.record(ClusterEvent(pod, "Refused", "a"))
    recorder.start("node-1")
    assert (len(api.calls), recorder.dropped) == (WAITING_AT_MOST, 50)


class DeepApi(AnsweringApi):
    """Notes how deep the stack is in each call."""

    def __init__(self) -> None:
        super().__init__()
        self.depths: list[int] = []

    async def call(self, call: ApiCall) -> dict[str, Any]:
        self.depths.append(len(inspect.stack(0)))
        return await super().call(call)


def test_what_has_waited_is_written_without_one_write_inside_the_other() -> None:
    clock, api = Clock(), DeepApi()
    recorder = EventRecorder(clock, api, lambda: 1.7e9, lambda: None)
    for number in range(WAITING_AT_MOST):
        pod = pod_reference("ns", f"pod-{number}", "uid")
        recorder.record(ClusterEvent(pod, "Refused", "a"))
    recorder.start("node-1")
    assert len(api.depths) == WAITING_AT_MOST
    assert len(set(api.depths)) == 1


@pytest.mark.parametrize("where", ["while it writes", "while it waits"])
def test_a_stop_ends_it(where: str) -> None:
    clock, api, recorder = recording()
    if where == "while it writes":
        api.held = Deferred()
    else:
        api.errors = [ApiError(0, "away")]
    recorder.record(sick())
    recorder.stop()
    recorder.record(sick())
    clock.pump([TRY_AGAIN] * 3)
    assert len(api.calls) == 1
    assert clock.getDelayedCalls() == []


def test_changes_of_the_problem_are_told() -> None:
    told: list[str] = []
    clock, api = Clock(), AnsweringApi()
    changed: Callable[[], None] = lambda: told.append(recorder.problem)  # noqa: E731
    recorder = EventRecorder(clock, api, lambda: 1.7e9, changed)
    recorder.start("node-1")
    api.errors = [ApiError(0, "away")] * 2
    recorder.record(sick())
    clock.pump([TRY_AGAIN] * 3)
    assert told == ["cannot write Events: away", ""]
