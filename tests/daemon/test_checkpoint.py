"""What the daemon makes of the kubelet's checkpoint at its start, whatever is there."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgpud.testing.kubelet.checkpoint import CheckpointFault
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import OTHER, RESOURCE, A, Node, shares
from tests.daemon.process import Process
from tests.daemon.record import WITHIN, tell
from tests.daemon.steps import admit, became

BROKEN: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: path.write_bytes(b'{"Data":{"PodDeviceEn'),
    "empty": lambda path: path.write_bytes(b""),
    "not an object": lambda path: path.write_bytes(b"[]"),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "binary": lambda path: path.write_bytes(os.urandom(1000)),
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path),
}


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    """Put something else in a file's place."""
    path.unlink()
    make(path)


def held(process: Process, resource: str = RESOURCE) -> int:
    """How many shares the daemon counts as held."""
    pools = {pool["resource"]: pool for pool in process.view()["pools"]}
    return sum(gpu["held"] for gpu in pools[resource]["gpus"])


@pytest.fixture
def left(daemon: Process, kubelet: StandInKubelet) -> set[str]:
    """The shares of a container; the daemon that gave them has ended."""
    ids = admit(kubelet, "held", 2).ids[RESOURCE]
    daemon.end()
    kubelet.skip()
    return set(ids)


def start(node: Node, kubelet: StandInKubelet) -> Process:
    process = node.start()
    kubelet.next_registration(WITHIN)
    kubelet.next_devices(RESOURCE, WITHIN)
    return process


def test_the_next_start_knows_the_holders(
    node: Node, kubelet: StandInKubelet, left: set[str]
) -> None:
    node.configure(rest='[gpus]\ndeny = ["*"]\n')
    assert held(start(node, kubelet)) == 2
    assert kubelet.lists(RESOURCE)[-1].healthy == left
    assert kubelet.lists(RESOURCE)[-1].devices.keys() == shares(10, 10)


def test_the_shape_of_old_kubelets(node: Node, daemon: Process, kubelet: StandInKubelet) -> None:
    kubelet.checkpoint.fault = CheckpointFault.OTHER_SHAPE
    ids = set(admit(kubelet, "held", 2).ids[RESOURCE])
    daemon.end()
    kubelet.skip()
    node.configure(rest='[gpus]\ndeny = ["*"]\n')
    assert held(start(node, kubelet)) == 2
    assert kubelet.lists(RESOURCE)[-1].healthy == ids


def test_no_checkpoint_means_no_holders(
    node: Node, kubelet: StandInKubelet, left: set[str]
) -> None:
    kubelet.checkpoint.fault = CheckpointFault.ABSENT
    kubelet.checkpoint.path.unlink()
    node.configure(3)
    assert held(start(node, kubelet)) == 0
    kubelet.wait_for(lambda k: k.lists(RESOURCE)[-1].healthy == shares(3, 3), WITHIN)
    assert left < shares(3, 3)


def test_a_checkpoint_that_is_broken_at_the_start(
    node: Node, kubelet: StandInKubelet, left: set[str]
) -> None:
    kubelet.checkpoint.fault = CheckpointFault.STALE
    replaced(kubelet.checkpoint.path, BROKEN["cut"])
    process = start(node, kubelet)
    process.said("The kubelet's checkpoint cannot be read")
    # Until the probe has answered, the free shares of the last known GPUs are withheld.
    became(kubelet, RESOURCE, 20, 20)
    assert left < kubelet.lists(RESOURCE)[-1].healthy == shares(10, 10)
    assert admit(kubelet, "next").ids[RESOURCE]


def test_a_corrupt_checkpoint_is_reported_and_costs_no_holder(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    ids = set(admit(kubelet, "held", 2).ids[RESOURCE])
    daemon.status(lambda status: "2 held" in status)
    kubelet.checkpoint.fault = CheckpointFault.STALE
    path = kubelet.checkpoint.path
    good = path.read_bytes()
    node.configure(rest='[gpus]\ndeny = ["*"]\n')
    for kind, breaks in BROKEN.items():
        tell(kind)
        mark = daemon.log.mark
        replaced(path, breaks)
        daemon.said("The kubelet's checkpoint cannot be read", mark)
        assert str(path) in daemon.view()["holders"]
        daemon.hang_up()
        became(kubelet, RESOURCE, 2, 20)
        assert kubelet.lists(RESOURCE)[-1].healthy == ids
        path.rmdir() if path.is_dir() else path.unlink()
        kubelet.checkpoint.replace(good)
        daemon.said("can be read again", mark)
    assert len(kubelet.attempts) == 1


def test_entries_that_are_not_as_they_should_be_cost_no_others(
    node: Node, kubelet: StandInKubelet, left: set[str]
) -> None:
    kubelet.checkpoint.fault = CheckpointFault.STALE
    document: dict[str, Any] = json.loads(kubelet.checkpoint.path.read_bytes())
    document["Data"]["PodDeviceEntries"] += [
        None,
        7,
        {},
        {"PodUID": 7, "ResourceName": RESOURCE, "DeviceIDs": {"0": [None, 7, "x", f"{A}::x"]}},
        {"ResourceName": "nvidia.com/gpu", "DeviceIDs": {"-1": ["GPU-1"]}, "AllocResp": "!"},
        {"ResourceName": OTHER, "DeviceIDs": {"-1": [f"{A}::77"]}, "AllocResp": "garbage"},
    ]
    kubelet.checkpoint.replace(json.dumps(document).encode())
    process = start(node, kubelet)
    assert held(process) == 2
    assert held(process, OTHER) == 1
    became(kubelet, OTHER, 1, 1)
    assert f"{A}::77" not in kubelet.devices(RESOURCE)
    assert left < kubelet.lists(RESOURCE)[-1].healthy


def test_a_checkpoint_that_changes_by_itself_sends_no_list(
    daemon: Process, kubelet: StandInKubelet
) -> None:
    messages = len(kubelet.lists(RESOURCE))
    for _ in range(5):
        kubelet.checkpoint.replace(kubelet.checkpoint.path.read_bytes())
        daemon.hang_up()
    admit(kubelet, "pod")
    daemon.status(lambda status: "1 held" in status)
    assert len(kubelet.lists(RESOURCE)) == messages


def test_a_checkpoint_that_is_removed_while_pods_run_frees_nothing(
    daemon: Process, kubelet: StandInKubelet
) -> None:
    admit(kubelet, "pod")
    daemon.status(lambda status: "1 held" in status)
    mark = daemon.log.mark
    kubelet.checkpoint.path.unlink()
    daemon.said("was removed while the kubelet runs", mark)
    # The kubelet has it all in memory, and writes it with the list that is sent for that.
    daemon.said("can be read again", mark)
    assert held(daemon) == 1
    assert kubelet.devices(RESOURCE).keys() == shares(10, 10)
    assert all(len(message.healthy) == len(shares(10, 10)) for message in kubelet.lists(RESOURCE))
