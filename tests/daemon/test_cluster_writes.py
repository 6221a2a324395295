"""The daemon as a device plugin, with credentials: Events, the condition, the fast status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sgpud.testing.api_server import ApiServer
from sgpud.testing.kubelet.plugins import PluginError
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import GPUS, A, Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.with_api_server import MEMORY, followed, serving, start

pytestmark = pytest.mark.slow
SICK = "SharedGPUUnhealthy"
FALLS = '[[event]]\nat = "2s"\ngpu = 0\nxid = 79\n'
"""A falls off the bus."""


@pytest.fixture
def api() -> Iterator[ApiServer]:
    server = ApiServer()
    server.start()
    yield server
    server.stop()


def event(api: ApiServer, reason: str) -> dict[str, object]:
    """Wait for an Event."""
    found = [one for one in api.core.events.values() if one["reason"] == reason]
    assert found or api.wait(
        lambda: any(one["reason"] == reason for one in api.core.events.values()), WITHIN
    ), (reason, api.core.events)
    return next(one for one in api.core.events.values() if one["reason"] == reason)


def condition(api: ApiServer, status: str) -> None:
    """Wait for the condition."""
    assert api.wait(lambda: api.core.condition(SICK).get("status") == status, WITHIN), api.calls


def test_a_gpu_that_falls_sick_and_recovers_is_told(
    node: Node, kubelet: StandInKubelet, api: ApiServer
) -> None:
    node.gpus.write_text(f"{GPUS}\n{FALLS}")
    process = serving(node, kubelet, api)
    fell = event(api, "GPUUnhealthy")
    assert A in str(fell["message"])
    assert fell["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Node",
        "name": api.node,
        "uid": api.node,
    }
    condition(api, "True")
    assert A in api.core.condition(SICK)["message"]
    assert api.core.condition("Ready")["status"] == "True"
    process.ask_about("heal", A)
    event(api, "GPURecovered")
    condition(api, "False")


def test_a_refusal_is_an_event_on_its_pod(
    node: Node, kubelet: StandInKubelet, api: ApiServer
) -> None:
    serving(node, kubelet, api)
    followed(api)
    for name in ("late", "other"):
        api.core.add_pod(name, uid=f"uid-{name}", phase="Pending")
    with pytest.raises(PluginError) as refused:
        kubelet.plugin(MEMORY).allocate(("GPU-0::1",), WITHIN)
    api.core.pods["default", "other"]["status"] |= {
        "reason": "UnexpectedAdmissionError",
        "message": "Allocate failed: of another resource",
    }
    api.core.end_pod("other", phase="Failed")
    pod = api.core.pods["default", "late"]
    pod["status"] |= {"reason": "UnexpectedAdmissionError", "message": refused.value.details}
    api.core.end_pod("late", phase="Failed")
    told = event(api, "SharesRefused")
    assert told["involvedObject"]["name"] == "late"  # type: ignore[index]
    assert str(told["message"]).startswith("unknown: ")
    assert len(api.core.events) == 1


def test_the_node_shows_a_changed_number_at_once(
    node: Node, kubelet: StandInKubelet, api: ApiServer
) -> None:
    serving(node, kubelet, api, "fast_status = true")
    condition(api, "False")
    start(kubelet, api, "a", 8)
    process = node.processes[-1]
    for attempt in range(20):
        # What the books show first is the kubelet's own to report, and no change.
        process.ask_about("uncordon" if attempt % 2 else "cordon", A)
        if api.wait(lambda: MEMORY in api.core.status["allocatable"], 3):
            break
    assert api.wait(
        lambda: api.core.status["allocatable"].get(MEMORY) == str(kubelet.allocatable(MEMORY)),
        WITHIN,
    ), api.calls
    allocatable = [one["allocatable"] for one in api.core.patches if "allocatable" in one]
    assert all(set(one) == {MEMORY} for one in allocatable)


def test_without_rights_each_is_said_once_and_pods_start(
    node: Node, kubelet: StandInKubelet, api: ApiServer
) -> None:
    api.core.forbidden |= {"patch nodes/status", "create events"}
    node.gpus.write_text(f"{GPUS}\n{FALLS}")
    process = serving(node, kubelet, api, "fast_status = true")
    process.said("cannot write the condition SharedGPUUnhealthy: 403")
    process.said("cannot write Events: 403")
    start(kubelet, api, "a", 8)
    (view,) = process.ask("plan")["view"]["cluster"]
    problems = " ".join(view["problems"])
    assert "cannot write Events: 403" in problems
    assert "cannot write the condition SharedGPUUnhealthy: 403" in problems
    told = [str(line) for line in process.log.items]
    assert sum("cannot write Events" in line for line in told) == 1


def test_fast_status_is_off_by_default(node: Node, kubelet: StandInKubelet, api: ApiServer) -> None:
    process: Process = serving(node, kubelet, api)
    condition(api, "False")
    process.ask_about("cordon", A)
    before = kubelet.allocatable(MEMORY)
    start(kubelet, api, "a", 8)
    kubelet.wait_for(lambda k: k.allocatable(MEMORY) <= before, WITHIN)
    assert not any("allocatable" in one for one in api.core.patches)
