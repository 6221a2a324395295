"""A node that goes from the device plugin to DRA, and back: never while pods would be forgotten."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from sgpud.cli.main import main
from sgpud.core.dra.allocator import DeviceRequest
from sgpud.core.dra.claims import SHARES
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.record import WITHIN
from tests.dra.node import DRIVER, DraNode, dra_node

pytestmark = pytest.mark.slow
RESOURCE = "deepomatic.com/shared-gpu"
MOST_BY_PLUGIN = 3
ONE = DeviceRequest("container-0-request-0")


@pytest.fixture
def manager(node: DraNode) -> Iterator[StandInKubelet]:
    """The device manager of the same kubelet."""
    with StandInKubelet(node.kubelet.root / "device-plugins", node.pod_resources) as kubelet:
        yield kubelet


@pytest.fixture
def node() -> Iterator[DraNode]:
    """A node whose kubelet has a device manager, too."""
    with dra_node(alone=False) as made:
        yield made


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
    node.start(force=True).said("Serving dra despite 1 pod with shares of the device plugin")
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


# `sgpud dra switch`. -----------------------------------------------------------------------------


@contextmanager
def reporting(node: DraNode, manager: StandInKubelet) -> Iterator[None]:
    """The kubelet reports what is allocatable when that has changed."""
    stop = Event()

    def report() -> None:
        told = -1
        while not stop.wait(0.2):
            if manager.allocatable(RESOURCE) != told:
                told = manager.allocatable(RESOURCE)
                node.api.core.status["allocatable"][RESOURCE] = str(told)

    thread = Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def switching(node: DraNode, api: str) -> tuple[Thread, io.StringIO, list[int]]:
    """The command, in a thread."""
    out, err, status = io.StringIO(), io.StringIO(), []
    words = ["dra", "switch", "--run-dir", str(node.run(0)), "--status-period", "1"]
    words += ["--config", str(node.root / "sgpud.toml")]
    sets = (
        f'kubelet.api="{api}"',
        f'dra.kubeconfig="{node.root / "kubeconfig"}"',
        f'dra.node_name="{node.api.node}"',
    )
    words += [word for each in sets for word in ("--set", each)]

    def run() -> None:
        status.append(main(words, {}, out, err))

    thread = Thread(target=run, daemon=True)
    thread.start()
    return thread, out, status


def test_a_node_is_switched_under_a_stream_of_pods_and_back(
    node: DraNode, manager: StandInKubelet
) -> None:
    plugin(node, manager)
    manager.admit("old", "prod", "train", "main", {RESOURCE: 1})
    claims = []
    with reporting(node, manager):
        command, out, status = switching(node, "dra")
        pause, by_plugin = Event(), 0
        while node.processes[0].running:
            # The scheduler: the node's number less the pods that it has bound here.
            shown = int(node.api.core.status["allocatable"].get(RESOURCE, "0"))
            if shown > 1 + by_plugin and by_plugin < MOST_BY_PLUGIN:
                by_plugin += 1
                # An AdmissionError would be a failed pod.
                manager.admit(f"new-{by_plugin}", "prod", "new", "main", {RESOURCE: 1})
            assert not node.api.slices
            pause.wait(0.05)
        assert node.processes[0].wait() == 75
        assert manager.allocatable(RESOURCE) == 0
        second = node.start(run=0)
        node.wait(lambda: bool(node.api.slices), "a slice is published")
        node.registered()
        command.join(WITHIN)
        assert status == [0], out.getvalue()
        assert "Waiting until the kubelet reports" in out.getvalue()
        assert out.getvalue().splitlines()[-1] == "This node serves dra."
        assert node.api.core.status["allocatable"][RESOURCE] == "0"
        claim = node.api.schedule("pod", ONE, limits=True)
        assert claim is not None
        assert list(node.kubelet.prepare([claim]).values()) == [""]
        claims.append(claim)
        # And back: a claim is waited for, and nothing new is given.
        command, out, status = switching(node, "device-plugin")
        taint = ("gpu.deepomatic.com/switching", "device-plugin", "NoSchedule")
        node.wait(
            lambda: all(taint in each for each in node.taints().values()), "the GPUs are tainted"
        )
        second.said("Switching [kubelet] api: withholding free")
        assert node.api.schedule("late", ONE, limits=True) is None
        assert second.running
        node.kubelet.unprepare(claims)
        assert second.wait() == 75
        node.start(api="device-plugin", run=0)
        manager.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == 8, WITHIN)
        command.join(WITHIN)
        assert status == [0], out.getvalue()
        assert "Waiting for 1 claim to end: default/" in out.getvalue()


def test_an_abandoned_switch_is_called_off(node: DraNode, manager: StandInKubelet) -> None:
    plugin(node, manager)
    process = node.processes[-1]
    process.ask("switch", step="free")
    manager.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == 0, WITHIN)
    process.said("for 30 s: the switch is cancelled", timeout=90)
    manager.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == 8, WITHIN)


# `sgpud dra remove-slices`. ----------------------------------------------------------------------


def test_slices_are_removed_unless_claims_are_held(node: DraNode, manager: StandInKubelet) -> None:
    assert manager.running
    node.serve()
    node.registered()
    claim = node.api.schedule("pod", ONE, limits=True)
    assert claim is not None
    node.kubelet.prepare([claim])
    node.processes[-1].end()
    words = ["dra", "remove-slices", "--config", str(node.root / "sgpud.toml")]
    words += ["--state-dir", str(node.state)]
    words += ["--set", f'dra.kubeconfig="{node.root / "kubeconfig"}"']
    words += ["--set", f'dra.node_name="{node.api.node}"']
    out, err = io.StringIO(), io.StringIO()
    assert main(words, {}, out, err) == 1
    assert "pods hold 1 claim (default/pod): without sgpud they stay Terminating" in err.getvalue()
    assert node.api.slices
    assert main([*words, "--force"], {}, out, err) == 0
    assert not node.api.slices
    assert "Removed ResourceSlice" in out.getvalue()
