"""Bad days of a driver: what is slow, away, restarted in the middle of something, or not alone."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from sgpud.core.dra.allocator import DeviceRequest
from sgpud.kubelet.api import pluginregistration_pb2 as registration_api
from sgpud.testing.dra_kubelet import NotRegisteredError
from tests.daemon.record import WITHIN
from tests.dra.node import DRIVER, DraNode

pytestmark = pytest.mark.slow
ONE = DeviceRequest("container-0-request-0")


def limits(node: DraNode, name: str) -> dict[str, Any]:
    """A claim as the scheduler makes it for a pod with limits."""
    claim = node.api.schedule(name, ONE, limits=True)
    assert claim is not None
    return claim


def prepared(node: DraNode, claim: dict[str, Any]) -> None:
    """Have a claim prepared."""
    assert list(node.kubelet.prepare([claim]).values()) == [""], node.logs()


def called(node: DraNode, path: str) -> Callable[[], bool]:
    """Whether the API server was asked for such a path."""
    return lambda: any(path in call[1] for call in node.api.calls)


def test_a_slow_api_server_costs_time_and_nothing_else(node: DraNode) -> None:
    node.api.slow = 0.7
    node.serve()
    node.registered()
    claim = limits(node, "pod")
    prepared(node, claim)
    assert node.kubelet.unprepare([claim]) == {claim["metadata"]["uid"]: ""}
    node.processes[-1].ask("status")


def test_a_kubelet_that_restarts_while_a_claim_is_prepared_asks_again(node: DraNode) -> None:
    node.serve()
    node.registered()
    claim = limits(node, "pod")
    with ThreadPoolExecutor(1) as pool:
        with node.api.stalled():
            first: Future[None] = pool.submit(prepared, node, claim)
            node.wait(called(node, "resourceclaims/pod"), "the claim is read")
            node.kubelet.restart()
            node.registered()
        first.result(WITHIN)
    # Its answer came to nobody; the next one is the same, and there is one claim.
    prepared(node, claim)
    assert len(node.specs()) == 1
    assert len(list((node.state / "claims").glob("*.json"))) == 1


def test_a_kubelet_that_restarts_before_the_slice_is_published(node: DraNode) -> None:
    with node.api.stalled():
        node.start()
        node.registered()
        node.kubelet.restart()
        node.registered()
    node.wait(lambda: bool(node.api.slices), "a slice is published")
    prepared(node, limits(node, "pod"))


def test_a_kubelet_that_restarts_while_a_claim_is_unprepared_asks_again(node: DraNode) -> None:
    node.serve()
    node.registered()
    claim = limits(node, "pod")
    prepared(node, claim)
    uid = claim["metadata"]["uid"]
    assert node.kubelet.unprepare([claim]) == {uid: ""}
    node.kubelet.restart()
    node.registered()
    assert node.kubelet.unprepare([claim]) == {uid: ""}
    assert node.specs() == {}


def test_a_pod_that_is_deleted_while_the_kubelet_is_away_leaves_nothing(node: DraNode) -> None:
    """Its claim is gone from the API server by then: an unprepare reads none."""
    node.serve()
    node.registered()
    claim = limits(node, "pod")
    prepared(node, claim)
    node.kubelet.stop()
    node.api.delete_claim("pod")
    node.kubelet.start()
    node.registered()
    with node.api.stalled():
        assert node.kubelet.unprepare([claim]) == {claim["metadata"]["uid"]: ""}
    assert node.specs() == {}


def test_an_unprepare_that_failed_succeeds_at_the_next_try(node: DraNode) -> None:
    node.serve()
    node.registered()
    claim = limits(node, "pod")
    prepared(node, claim)
    (record,) = (node.state / "claims").glob("*.json")
    record.unlink()
    record.mkdir()
    (error,) = node.kubelet.unprepare([claim]).values()
    assert "cannot remove" in error
    record.rmdir()
    assert list(node.kubelet.unprepare([claim]).values()) == [""]
    assert node.specs() == {}


def test_while_the_driver_is_away_nothing_is_called_and_nothing_lost(node: DraNode) -> None:
    process = node.serve()
    node.registered()
    claim = limits(node, "pod")
    prepared(node, claim)
    process.end()
    assert node.kubelet.wait(lambda: DRIVER not in node.kubelet.drivers, WITHIN)
    with pytest.raises(NotRegisteredError):
        node.kubelet.unprepare([claim])
    node.serve()
    node.registered()
    assert node.kubelet.unprepare([claim]) == {claim["metadata"]["uid"]: ""}


class Rival:
    """Another driver of the same name."""

    def __init__(self, node: DraNode) -> None:
        self.path = node.kubelet.root / "plugins_registry" / "rival-reg.sock"
        info = registration_api.PluginInfo(
            type="DRAPlugin", name=DRIVER, supported_versions=["v1.DRAPlugin"]
        ).SerializeToString()
        handlers: dict[str, Any] = {
            "GetInfo": grpc.unary_unary_rpc_method_handler(lambda _, __: info),
            "NotifyRegistrationStatus": grpc.unary_unary_rpc_method_handler(lambda _, __: b""),
        }
        self.server = grpc.server(ThreadPoolExecutor(2))
        service = "pluginregistration.Registration"
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, handlers),)
        )
        self.server.add_insecure_port(f"unix:{self.path}")
        self.server.start()

    def end(self) -> None:
        """Go, with the socket."""
        self.server.stop(0).wait()
        self.path.unlink(missing_ok=True)


def test_a_rival_of_the_same_name_leaves_slice_and_claims_alone(node: DraNode) -> None:
    """The kubelet calls the newest; what ours has prepared stays, and what it writes wins."""
    node.serve()
    node.registered()
    prepared(node, limits(node, "pod"))
    before = node.specs()
    ours = node.kubelet.drivers[DRIVER].socket
    rival = Rival(node)
    try:
        assert node.kubelet.wait(lambda: node.kubelet.drivers[DRIVER].socket == rival.path, WITHIN)
        (name,) = node.api.slices

        def spoil(found: dict[str, Any]) -> None:
            found["spec"]["devices"] = found["spec"]["devices"][:1]

        node.api.edit(name, spoil)
        node.wait(lambda: len(node.spec["devices"]) == 2, "our slice is as it was", 5)
    finally:
        rival.end()
    assert node.specs() == before
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(str(ours))
