"""A node that goes from the device plugin to DRA, and back: never while pods would be forgotten."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgpud.core.dra.allocator import DeviceRequest
from sgpud.core.dra.claims import SHARES
from sgpud.testing.api_server import ApiServer
from sgpud.testing.dra_kubelet import DraKubelet
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.record import WITHIN
from tests.dra.node import DRIVER, DraNode

pytestmark = pytest.mark.slow
RESOURCE = "deepomatic.com/shared-gpu"
ONE = DeviceRequest("container-0-request-0")


@pytest.fixture
def manager(node: DraNode) -> Iterator[StandInKubelet]:
    """The device manager of the same kubelet."""
    with StandInKubelet(node.kubelet.root / "device-plugins", node.pod_resources) as kubelet:
        yield kubelet


@pytest.fixture
def node() -> Iterator[DraNode]:
    """A node whose kubelet has a device manager, too."""
    with tempfile.TemporaryDirectory(prefix="sgpud-", dir="/tmp") as folder:
        api = ApiServer()
        api.start()
        kubelet = DraKubelet(Path(folder) / "kubelet", api.delete_all, alone=False)
        kubelet.start()
        made = DraNode(Path(folder), api, kubelet)
        try:
            yield made
        finally:
            made.close()
            kubelet.stop()
            api.stop()


def plugin(node: DraNode, manager: StandInKubelet) -> None:
    """Serve as a device plugin."""
    node.start(api="device-plugin")
    manager.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == 8, WITHIN)


def test_dra_is_refused_while_pods_hold_what_the_device_plugin_gave(
    node: DraNode, manager: StandInKubelet
) -> None:
    plugin(node, manager)
    manager.admit("uid", "prod", "train", "main", {RESOURCE: 1})
    node.processes[-1].end()
    second = node.start()
    second.said('api = "dra" is not in use, "device-plugin" is, because of 1 pod with shares')
    manager.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == 8, WITHIN)
    assert "prod/train" in json.dumps(second.view()["notes"])
    assert not node.api.slices
    assert DRIVER not in node.kubelet.drivers
    second.end()
    # A finished pod stays in the kubelet's checkpoint, and holds nothing.
    manager.terminate("uid")
    node.serve()
    assert all(device["capacity"][SHARES]["value"] == "4" for device in node.spec["devices"])


def test_force_serves_what_is_configured_and_does_not_offer_what_is_held(
    node: DraNode, manager: StandInKubelet
) -> None:
    plugin(node, manager)
    manager.admit("uid", "prod", "train", "main", {RESOURCE: 1})
    node.processes[-1].end()
    node.start(force=True).said("Serving dra in spite of 1 pod with shares of the device plugin")
    node.wait(lambda: bool(node.api.slices), "a slice is published")
    node.wait(
        lambda: (
            sorted(each["capacity"][SHARES]["value"] for each in node.spec["devices"]) == ["3", "4"]
        ),
        "what is held is not offered",
    )
    # It is what this node serves from now on.
    node.processes[-1].end()
    node.api.delete_all()
    node.serve()


def test_the_device_plugin_is_refused_while_claims_are_prepared(
    node: DraNode, manager: StandInKubelet
) -> None:
    node.serve()
    node.registered()
    claim = node.api.schedule("pod", ONE, limits=True)
    assert claim is not None
    node.kubelet.prepare([claim])
    node.processes[-1].end()
    second = node.start(api="device-plugin")
    second.said('"dra" is, because of 1 claim prepared here (default/pod)')
    node.registered()
    assert node.kubelet.unprepare([claim]) == {claim["metadata"]["uid"]: ""}
    second.end()
    plugin(node, manager)


def test_a_kubelet_that_cannot_be_asked_is_taken_at_its_checkpoint(
    node: DraNode, manager: StandInKubelet
) -> None:
    plugin(node, manager)
    manager.admit("uid", "prod", "train", "main", {RESOURCE: 1})
    node.processes[-1].end()
    manager.pod_resources.stop()
    second = node.start()
    second.said(
        "1 container with shares of the device plugin in the checkpoint (the kubelet cannot"
    )
