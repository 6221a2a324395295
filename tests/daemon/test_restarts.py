"""The kubelet restarts, again and again: each life gets its list, and nothing is left behind."""

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node, shares
from tests.daemon.process import Process
from tests.daemon.record import WITHIN, tell
from tests.daemon.steps import admitted

SPARE = 2
"""How many more threads or descriptors gRPC may have at the moment of looking."""


def restarted(node: Node, daemon: Process, kubelet: StandInKubelet, times: int) -> tuple[int, int]:
    """Restart the kubelet so many times; the fewest threads and descriptors that were seen."""
    threads, descriptors = [], []
    for _ in range(times):
        kubelet.restart()
        endpoint = kubelet.next_registration(WITHIN).endpoint
        message = kubelet.next_devices(RESOURCE, WITHIN)
        assert message.healthy == shares(10, 10)
        assert node.endpoints() == {endpoint}
        threads.append(len(daemon.threads()))
        descriptors.append(len(daemon.descriptors()))
    return min(threads), min(descriptors)


def check(node: Node, daemon: Process, kubelet: StandInKubelet, times: int) -> None:
    share = admitted(kubelet)
    kubelet.skip()
    before = restarted(node, daemon, kubelet, 10)
    restarted(node, daemon, kubelet, times - 20)
    after = restarted(node, daemon, kubelet, 10)
    tell(f"threads and descriptors: {before} at first, {after} after {times} restarts")
    assert after[0] <= before[0] + SPARE
    assert after[1] <= before[1] + SPARE
    assert kubelet.devices(RESOURCE)[share].health == "Healthy"
    assert len(kubelet.registrations) == times + 1
    daemon.end()
    assert node.endpoints() == set()


def test_thirty_restarts(node: Node, daemon: Process, kubelet: StandInKubelet) -> None:
    check(node, daemon, kubelet, 30)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_thousand_restarts(node: Node, daemon: Process, kubelet: StandInKubelet) -> None:
    check(node, daemon, kubelet, 1000)
