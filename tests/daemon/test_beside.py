"""Another plugin on the same node: sgpud leaves it alone, under its own name and under sgpud's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node, shares
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
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
