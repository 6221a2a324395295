"""Another plugin on the same node: sgpud leaves it alone, under its own name and under sgpud's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node, shares
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.steps import admit
from tests.testing.kubelet.scripted import ScriptedPlugin

OTHER = "nvidia.com/gpu"
ENDPOINT = "nvidia-gpu.sock"


@pytest.fixture
def other(node: Node, kubelet: StandInKubelet) -> Iterator[ScriptedPlugin]:
    """A plugin that serves on the node; the kubelet is there, and knows nothing of it yet."""
    assert kubelet.running
    with ScriptedPlugin(node.plugin_dir, ENDPOINT) as plugin:
        plugin.send({"nvidia0": True})
        yield plugin


def test_under_another_name_both_serve(
    other: ScriptedPlugin, node: Node, kubelet: StandInKubelet
) -> None:
    other.register(resource=OTHER)
    process = node.start()
    kubelet.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == len(shares(10, 10)), WITHIN)
    kubelet.wait_for(lambda kubelet: kubelet.allocatable(OTHER) == 1, WITHIN)
    process.end()
    kubelet.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == 0, WITHIN)
    assert kubelet.allocatable(OTHER) == 1
    assert (node.plugin_dir / ENDPOINT).is_socket()


def test_to_a_registration_of_its_name_it_answers_with_none(
    daemon: Process, other: ScriptedPlugin, node: Node, kubelet: StandInKubelet
) -> None:
    other.register(resource=RESOURCE)
    kubelet.wait_for(lambda kubelet: len(kubelet.registrations) == 2, WITHIN)
    # What the daemon had to say to it, it has said when it has answered twice.
    daemon.hang_up()
    daemon.hang_up()
    assert [each.endpoint for each in kubelet.registrations][1:] == [ENDPOINT]
    assert (node.plugin_dir / ENDPOINT).is_socket()


def test_a_rival_is_named_everywhere_and_outlived(
    daemon: Process, other: ScriptedPlugin, node: Node, kubelet: StandInKubelet
) -> None:
    """The node shows none of ours after its end, and only a new registration brings them back."""
    other.register(resource=RESOURCE)
    kubelet.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == 1, WITHIN)
    daemon.status(lambda status: "superseded by another plugin" in status)
    shown = node.command("status", "--run-dir", str(node.run)).stdout
    assert "another plugin registered it after sgpud and lists nvidia0" in shown
    (unready,) = daemon.view()["unready"]
    assert f"the kubelet does not follow {RESOURCE}: superseded by another plugin" in unready
    # A list of ours would replace the rival's, and the kubelet would ask the rival for our shares.
    node.configure(5)
    daemon.hang_up()
    assert kubelet.allocatable(RESOURCE) == 1
    other.stop()
    kubelet.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == 10, WITHIN)
    daemon.status(lambda status: "registered" in status)
    assert daemon.view()["unready"] == []
    admit(kubelet, "after")
