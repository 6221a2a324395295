"""The daemon as a device plugin, with credentials: names and ends of pods from the API server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Event

import pytest

from sgpud.testing.api_server import ApiFault, ApiServer
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.with_api_server import followed, serving, start

pytestmark = pytest.mark.slow


@pytest.fixture
def api() -> Iterator[ApiServer]:
    server = ApiServer()
    server.start()
    yield server
    server.stop()


def end(kubelet: StandInKubelet, api: ApiServer, name: str) -> None:
    """A pod's containers end, and the kubelet reports it."""
    kubelet.terminate(f"uid-{name}")
    api.core.end_pod(name)


def holders(process: Process) -> set[str]:
    """The holders' names."""
    view = process.ask("plan")["view"]
    return {
        holder["pod"] for pool in view["pools"] for gpu in pool["gpus"] for holder in gpu["holders"]
    }


def eventually(process: Process, names: set[str]) -> None:
    """Wait until these hold shares."""
    end, pause = time.monotonic() + WITHIN, Event()
    while holders(process) != names:
        assert time.monotonic() < end, (holders(process), names)
        pause.wait(0.05)


def test_names_come_from_the_api_server_and_ends_make_room(
    node: Node, kubelet: StandInKubelet, api: ApiServer
) -> None:
    process = serving(node, kubelet, api)
    followed(api)
    start(kubelet, api, "a", 3)
    start(kubelet, api, "b", 2)
    eventually(process, {"a", "b"})
    end(kubelet, api, "a")
    eventually(process, {"b"})
    kubelet.terminate("uid-b")
    api.core.delete_pod("b")
    eventually(process, set())


def test_a_pod_that_was_deleted_by_force_holds_until_the_kubelet_says_otherwise(
    node: Node, kubelet: StandInKubelet, api: ApiServer
) -> None:
    process = serving(node, kubelet, api)
    followed(api)
    start(kubelet, api, "forced", 3)
    eventually(process, {"forced"})
    asked = len(api.calls)
    api.core.delete_pod("forced")
    start(kubelet, api, "next", 1)
    eventually(process, {"forced", "next"})
    assert len(api.calls) == asked
    kubelet.terminate("uid-forced")
    eventually(process, {"next"})


def test_without_the_right_it_is_said_once_and_nothing_is_missed_but_that(
    node: Node, kubelet: StandInKubelet, api: ApiServer
) -> None:
    api.core.forbidden |= {"list pods", "watch pods"}
    process = serving(node, kubelet, api)
    process.said("cannot list the pods of this node: 403: pods is forbidden")
    start(kubelet, api, "a", 3)
    eventually(process, {"a"})
    (view,) = process.ask("plan")["view"]["cluster"]
    assert not view["pods_followed"]
    assert "403" in view["problems"][0]
    end(kubelet, api, "a")
    eventually(process, set())
    api.core.forbidden.clear()
    process.said("Watching the pods of this node again")
    assert sum("cannot list the pods" in str(line) for line in process.log.items) == 1


def test_an_api_server_that_is_away_and_slow_is_followed_when_it_is_back(
    node: Node, kubelet: StandInKubelet, api: ApiServer
) -> None:
    api.faults.append(ApiFault(503, times=2))
    process = serving(node, kubelet, api)
    process.said("cannot list the pods of this node: 503")
    process.said("Watching the pods of this node again")
    start(kubelet, api, "a", 3)
    eventually(process, {"a"})
    port = api.port
    api.stop()
    process.said("cannot watch the pods of this node")
    api.core.end_pod("a")
    kubelet.terminate("uid-a")
    start(kubelet, api, "b", 3)
    eventually(process, {"b"})
    api.slow = 0.5
    api.forget_history()
    api.start(port)
    process.said("Watching the pods of this node again", timeout=3 * WITHIN)
    end(kubelet, api, "b")
    eventually(process, set())


def test_never_means_never(node: Node, kubelet: StandInKubelet, api: ApiServer) -> None:
    process = serving(node, kubelet, api, 'api_server = "never"')
    start(kubelet, api, "a", 3)
    eventually(process, {"a"})
    end(kubelet, api, "a")
    eventually(process, set())
    assert api.calls == []
    assert process.ask("plan")["view"]["cluster"] == []
