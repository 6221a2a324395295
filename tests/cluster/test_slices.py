"""The publisher of the slice, with a clock and a server that the test moves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from sgpud.cluster.calls import FIRST_PAUSE, GONE, LONGEST_PAUSE, ApiCall, ApiError
from sgpud.cluster.slices import WRITE_APART, SlicePublisher
from sgpud.core.health.node_health import cordoned
from tests.core.dra.worlds import of_node, places
from tests.core.values import uuid

DEVICES = of_node(places())
TAINTED = of_node(cordoned(places(), uuid(0), on=True))
TURNED = tuple(reversed(DEVICES))


class Server:
    """Answers at once; events are told when the test says so."""

    def __init__(self) -> None:
        self.calls: list[ApiCall] = []
        self.stored: dict[str, dict[str, Any]] = {}
        self.errors: list[ApiError] = []
        self.version = 10
        self.event: Callable[[dict[str, Any]], None] = lambda _: None
        self.watching: Deferred[None] = Deferred()

    async def call(self, call: ApiCall) -> dict[str, Any]:
        self.calls.append(call)
        if self.errors:
            raise self.errors.pop(0)
        if call.path.startswith("/api/v1/nodes/"):
            return {"metadata": {"uid": "node-uid"}}
        if call.method == "GET":
            items = [copy.deepcopy(each) for each in self.stored.values()]
            return {"metadata": {"resourceVersion": str(self.version)}, "items": items}
        if call.method == "DELETE":
            self.gone(call.path.rpartition("/")[2])
            return {}
        made = copy.deepcopy(dict(cast("dict[str, Any]", call.body)))
        made["metadata"].setdefault("name", f"slice-{self.version}")
        made["metadata"].setdefault("uid", f"uid-{self.version}")
        made["metadata"]["resourceVersion"] = str(self.version + 1)
        if not call.query:
            self.store(made)
        return made

    def store(self, made: dict[str, Any]) -> None:
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        kind = "MODIFIED" if made["metadata"]["name"] in self.stored else "ADDED"
        self.stored[made["metadata"]["name"]] = made
        self.event({"type": kind, "object": copy.deepcopy(made)})

    def gone(self, name: str) -> None:
        made = copy.deepcopy(self.stored.pop(name))
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        self.event({"type": "DELETED", "object": made})

    async def watch(self, call: ApiCall, event: Callable[[dict[str, Any]], None]) -> None:
        self.calls.append(call)
        self.event, self.watching = event, Deferred()
        await self.watching

    @property
    def writes(self) -> list[str]:
        """The methods of the calls that changed something."""
        return [one.method for one in self.calls if one.method != "GET" and not one.query]


def publishing(*devices: Any) -> tuple[Clock, Server, SlicePublisher]:
    """A publisher whose devices are published."""
    clock, server = Clock(), Server()
    publisher = SlicePublisher(clock, server, lambda: None, lambda: 0.0)
    publisher.start("gpu.deepomatic.com", "node-1")
    publisher.publish(devices or DEVICES)
    publisher.enable()
    clock.advance(0)
    return clock, server, publisher


def test_it_is_tried_without_a_write_first_and_written_once() -> None:
    clock, server, publisher = publishing()
    posts = [call.query for call in server.calls if call.method == "POST"]
    assert posts == [(("dryRun", "All"),), ()]
    clock.pump([1.0] * 20)
    assert server.writes == ["POST"]
    assert publisher.status.published


def test_nothing_is_written_before_the_kubelet_knows_the_driver_or_the_gpus_are_known() -> None:
    clock, server = Clock(), Server()
    publisher = SlicePublisher(clock, server, lambda: None, lambda: 0.0)
    publisher.start("gpu.deepomatic.com", "node-1")
    publisher.publish(DEVICES)
    clock.pump([1.0] * 5)
    publisher.publish(None)
    publisher.enable()
    clock.pump([1.0] * 5)
    assert server.writes == []


def test_a_burst_is_one_write_a_second() -> None:
    clock, server, publisher = publishing()
    for number in range(100):
        publisher.publish(TAINTED if number % 2 else DEVICES)
        clock.advance(WRITE_APART / 50)
    clock.advance(WRITE_APART)
    assert server.writes.count("PUT") <= 3
    (stored,) = server.stored.values()
    assert "taints" in str(stored)


def test_a_new_order_alone_waits_longer() -> None:
    clock, server, publisher = publishing()
    clock.advance(WRITE_APART)
    publisher.publish(TURNED)
    clock.pump([1.0] * 8)
    assert server.writes == ["POST"]
    clock.pump([1.0] * 3)
    assert server.writes == ["POST", "PUT"]


def test_a_deleted_slice_is_repaired_at_once() -> None:
    clock, server, publisher = publishing()
    clock.advance(WRITE_APART)
    server.gone(next(iter(server.stored)))
    clock.advance(0)
    assert server.writes == ["POST", "POST"]
    assert publisher.status.repairs == 1


def test_one_that_is_deleted_before_its_write_is_answered_is_repaired_too() -> None:
    """The answer would say that it is there; only the watch says what there is."""
    clock, server = Clock(), Server()
    publisher = SlicePublisher(clock, server, lambda: None, lambda: 0.0)
    stored = server.store

    def wiped(made: dict[str, Any]) -> None:
        stored(made)
        server.store = stored  # type: ignore[method-assign] # once
        server.gone(made["metadata"]["name"])

    server.store = wiped  # type: ignore[method-assign] # as a kubelet that starts
    publisher.start("gpu.deepomatic.com", "node-1")
    publisher.publish(DEVICES)
    publisher.enable()
    clock.advance(0)
    assert server.stored == {}
    clock.pump([WRITE_APART, 0.1])
    assert len(server.stored) == 1


def test_several_slices_become_one() -> None:
    clock, server, _ = publishing()
    (stored,) = server.stored.values()
    other = copy.deepcopy(stored)
    other["metadata"] |= {"name": "z-other", "uid": "z"}
    server.store(other)
    clock.pump([WRITE_APART] * 3)
    assert len(server.stored) == 1
    assert "z-other" not in server.stored


def test_errors_are_tried_again_later_and_later_and_counted() -> None:
    clock, server, publisher = publishing()
    clock.advance(WRITE_APART)
    server.errors = [ApiError(500, "no")] * 20
    publisher.publish(TAINTED)
    clock.advance(0)
    assert "500: no" in publisher.status.problem
    before = len(server.calls)
    # Never sooner than any other write.
    clock.pump([FIRST_PAUSE, WRITE_APART - FIRST_PAUSE])
    assert len(server.calls) == before + 1
    clock.pump([1.0] * 200)
    assert publisher.status.errors["PUT", 500] <= 20
    clock.pump([LONGEST_PAUSE] * 20)
    assert publisher.status.problem == ""
    assert publisher.status.published


def test_a_429_is_waited_for_as_long_as_it_says() -> None:
    clock, server, publisher = publishing()
    clock.advance(WRITE_APART)
    server.errors = [ApiError(429, "slow down", 7.0)]
    publisher.publish(TAINTED)
    clock.advance(0)
    clock.pump([1.0] * 6)
    assert "PUT" not in server.writes[2:]
    clock.pump([1.0] * 2)
    assert server.writes.count("PUT") == 2


def test_a_watch_that_is_too_old_lists_again() -> None:
    clock, server, _ = publishing()
    lists = len([call for call in server.calls if call.method == "GET"])
    server.stored.clear()
    server.watching.errback(ApiError(GONE, "too old"))
    clock.pump([WRITE_APART] * 2)
    assert len([call for call in server.calls if call.method == "GET"]) > lists
    assert len(server.stored) == 1


def test_a_stop_leaves_the_slice() -> None:
    clock, server, publisher = publishing()
    publisher.stop()
    server.gone(next(iter(server.stored)))
    clock.pump([1.0] * 5)
    assert server.writes == ["POST"]
    assert clock.getDelayedCalls() == []
