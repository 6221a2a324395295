"""What is written to the status of the Node: how often, and what never."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from sgpud.cluster.calls import MERGE_PATCH, RIGHTS_AGAIN, STRATEGIC_MERGE_PATCH, ApiError
from sgpud.cluster.node_status import (
    HEARTBEAT,
    PATCHES_APART,
    AllocatableWriter,
    ConditionWriter,
)
from sgpud.core.cluster.conditions import CONDITION, NodeCondition
from tests.cluster.answering import AnsweringApi

A, B = "example.com/a", "example.com/b"
GOOD = NodeCondition("False", "HealthyGPUs", "2 GPUs shared")
BAD = NodeCondition("True", "UnhealthyGPUs", "GPU 1")


def numbers() -> tuple[Clock, AnsweringApi, AllocatableWriter]:
    """A writer that knows what the Node shows: 10 of A, 5 of B."""
    clock, api = Clock(), AnsweringApi()
    writer = AllocatableWriter(clock, api, lambda: None)
    writer.start("node-1")
    writer.agreed({A: 10, B: 5})
    clock.advance(1)
    return clock, api, writer


def bodies(api: AnsweringApi) -> list[Any]:
    return [call.body["status"]["allocatable"] for call in api.calls if call.body]


def test_a_change_is_patched_at_once_and_only_that_name() -> None:
    clock, api, writer = numbers()
    assert api.calls == []  # what the kubelet reports already is no change
    writer.agreed({A: 7, B: 5})
    clock.advance(0)
    (call,) = api.calls
    assert (call.method, call.path) == ("PATCH", "/api/v1/nodes/node-1/status")
    assert call.content_type == MERGE_PATCH
    assert call.body == {"status": {"allocatable": {A: "7"}}}
    writer.agreed({A: 7, B: 5})
    clock.advance(10)
    assert len(api.calls) == 1


def test_a_burst_is_five_patches_a_second_and_ends_with_the_last_number() -> None:
    clock, api, writer = numbers()
    began = clock.seconds()
    for number in range(100, 200):
        writer.agreed({A: number, B: 5})
        clock.advance(0.01)
    assert len(api.calls) <= (clock.seconds() - began) / PATCHES_APART + 1
    clock.advance(PATCHES_APART)
    assert bodies(api)[-1] == {A: "199"}


def test_nothing_is_written_while_the_books_differ() -> None:
    clock, api, writer = numbers()
    writer.agreed({B: 5})
    clock.advance(1)
    assert api.calls == []
    # A number that was to be written, and is no longer what the kubelet has.
    writer.agreed({A: 9, B: 4})
    writer.agreed({})
    clock.advance(1)
    assert api.calls == []
    # What the kubelet shows after that, it reports itself: a registration is no change.
    writer.agreed({A: 100, B: 5})
    clock.advance(1)
    assert api.calls == []
    writer.agreed({A: 99, B: 5})
    clock.advance(1)
    assert bodies(api) == [{A: "99"}]


def test_a_number_that_is_back_is_not_written() -> None:
    clock, api, writer = numbers()
    writer.agreed({A: 9, B: 5})
    writer.agreed({A: 10, B: 5})
    clock.advance(1)
    assert api.calls == []


def test_without_the_right_it_says_so_and_looks_again_rarely() -> None:
    clock, api, writer = numbers()
    api.errors = [ApiError(403, "nodes is forbidden")]
    for number in range(50):
        writer.agreed({A: 20 + number, B: 5})
        clock.advance(1)
    assert len(api.calls) == 1
    assert writer.writer.problem == "cannot write the allocatable shares: 403: nodes is forbidden"
    clock.advance(RIGHTS_AGAIN)
    assert bodies(api)[-1] == {A: "69"}
    assert writer.writer.problem == ""


def test_where_the_server_is_away_the_latest_number_is_written_afterwards() -> None:
    clock, api, writer = numbers()
    api.errors = [ApiError(0, "no answer")] * 3
    writer.agreed({A: 9, B: 5})
    clock.advance(0)
    writer.agreed({A: 8, B: 5})
    clock.pump([0.5] * 20)
    assert bodies(api)[-1] == {A: "8"}
    assert len(api.calls) == 4


def test_a_condition_is_read_once_written_and_kept_alive() -> None:
    clock, api = Clock(), AnsweringApi()
    since = "2020-01-01T00:00:00Z"
    known = {"type": CONDITION, "status": "False", "lastTransitionTime": since}
    api.answers = [{"status": {"conditions": [{"type": "Ready"}, known]}}]
    writer = ConditionWriter(clock, api, lambda: 1.7e9 + clock.seconds(), lambda: None)
    writer.set(GOOD)
    clock.advance(0)
    assert api.calls == []
    writer.start("node-1")
    clock.advance(0)
    assert [call.method for call in api.calls] == ["GET", "PATCH"]
    assert api.calls[1].content_type == STRATEGIC_MERGE_PATCH
    assert written(api)["lastTransitionTime"] == since
    writer.set(GOOD)
    clock.advance(HEARTBEAT / 2)
    assert len(api.calls) == 2
    writer.set(BAD)
    clock.advance(0)
    assert written(api)["status"] == "True"
    assert written(api)["lastTransitionTime"] != since
    clock.advance(HEARTBEAT)
    assert len(api.calls) == 4
    writer.writer.stop()
    assert clock.getDelayedCalls() == []


def written(api: AnsweringApi) -> dict[str, Any]:
    """The condition that was written last."""
    body = api.calls[-1].body
    assert body is not None
    found: dict[str, Any] = body["status"]["conditions"][0]
    return found


def test_a_condition_that_cannot_be_written_is_tried_again() -> None:
    clock, api = Clock(), AnsweringApi()
    writer = ConditionWriter(clock, api, lambda: 1.7e9, lambda: None)
    writer.start("node-1")
    api.errors = [ApiError(0, "no answer"), ApiError(403, "no")]
    writer.set(BAD)
    clock.advance(0)
    assert "no answer" in writer.writer.problem
    clock.pump([1.0] * 5)
    assert "403: no" in writer.writer.problem
    clock.advance(RIGHTS_AGAIN)
    assert (written(api)["status"], writer.writer.problem) == ("True", "")
