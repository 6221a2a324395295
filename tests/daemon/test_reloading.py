"""A changed configuration reaches the kubelet on the stream that is there."""

import json
from collections.abc import Iterator

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import OTHER, RESOURCE, A, B, Node, of, shares
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.steps import RULE, admit, became


@pytest.fixture
def held(daemon: Process, kubelet: StandInKubelet) -> Iterator[set[str]]:
    """The shares of a container on each GPU. Whatever the test does, they stay listed Healthy."""
    ids = admit(kubelet, "held", 2).ids[RESOURCE]
    daemon.status(lambda status: "2 held" in status)
    yield set(ids)
    devices = kubelet.devices(RESOURCE)
    assert [devices[share].health for share in ids] == ["Healthy"] * 2


def test_shrinking_drains_what_is_free(
    node: Node, daemon: Process, kubelet: StandInKubelet, held: set[str]
) -> None:
    node.configure(3)
    daemon.hang_up()
    became(kubelet, RESOURCE, 6, 20)
    assert kubelet.devices(RESOURCE).keys() == shares(10, 10)
    # What the kubelet may have chosen before is still given, and Healthy again.
    late = max(of(A, shares(10, 10) - held))
    assert kubelet.devices(RESOURCE)[late].health == "Unhealthy"
    assert kubelet.plugin(RESOURCE).allocate((late,), WITHIN).container_responses
    kubelet.wait_for(lambda k: k.devices(RESOURCE)[late].health == "Healthy", WITHIN)
    assert len(kubelet.attempts) == 1


def test_growing_adds_new_shares(
    node: Node, daemon: Process, kubelet: StandInKubelet, held: set[str]
) -> None:
    node.configure(25)
    daemon.hang_up()
    became(kubelet, RESOURCE, 50, 50)
    assert kubelet.devices(RESOURCE).keys() == shares(25, 25)
    assert held < kubelet.devices(RESOURCE).keys()
    assert len(kubelet.attempts) == 1


def test_a_new_rule_moves_one_gpu_to_a_pool_of_its_own(
    node: Node, daemon: Process, kubelet: StandInKubelet, held: set[str]
) -> None:
    node.configure(rest=RULE)
    daemon.hang_up()
    assert kubelet.next_registration(WITHIN).resource == OTHER
    became(kubelet, RESOURCE, 11, 20)
    # One tenth of B is held under the old name: nine tenths of its four shares have room.
    became(kubelet, OTHER, 3, 3)
    assert of(B, held) == of(B, kubelet.lists(RESOURCE)[-1].healthy)
    assert not kubelet.devices(OTHER).keys() & kubelet.devices(RESOURCE).keys()
    given = admit(kubelet, "other", resource=OTHER)
    assert given.envs["SGPUD_OTHER_GPU_GPU_UUIDS"] == B
    assert [attempt.resource for attempt in kubelet.attempts] == [RESOURCE, OTHER]


def test_a_renamed_resource_keeps_its_holders_under_the_old_name(
    node: Node, daemon: Process, kubelet: StandInKubelet, held: set[str]
) -> None:
    node.configure(resource=OTHER)
    daemon.hang_up()
    became(kubelet, RESOURCE, 2, 20)
    became(kubelet, OTHER, 18, 18)
    assert kubelet.lists(RESOURCE)[-1].healthy == held
    assert not kubelet.devices(OTHER).keys() & kubelet.devices(RESOURCE).keys()
    assert [attempt.resource for attempt in kubelet.attempts] == [RESOURCE, OTHER]
    assert admit(kubelet, "other", resource=OTHER).ids[OTHER]


def test_renaming_back_before_the_drain_is_over(
    node: Node, daemon: Process, kubelet: StandInKubelet, held: set[str]
) -> None:
    node.configure(resource=OTHER)
    daemon.hang_up()
    became(kubelet, OTHER, 18, 18)
    node.configure()
    daemon.hang_up()
    became(kubelet, RESOURCE, 20, 20)
    became(kubelet, OTHER, 0, 18)
    assert held < kubelet.lists(RESOURCE)[-1].healthy


def test_a_denied_gpu_drains_but_for_its_holders(
    node: Node, daemon: Process, kubelet: StandInKubelet, held: set[str]
) -> None:
    node.configure(rest=f'[gpus]\ndeny = ["{B}"]\n')
    daemon.hang_up()
    became(kubelet, RESOURCE, 11, 20)
    assert of(B, kubelet.lists(RESOURCE)[-1].healthy) == of(B, held)
    node.configure()
    daemon.hang_up()
    became(kubelet, RESOURCE, 20, 20)
    assert len(kubelet.attempts) == 1


def test_another_method_is_answered_at_once_and_sends_no_list(
    node: Node, daemon: Process, kubelet: StandInKubelet, held: set[str]
) -> None:
    assert held
    messages = len(kubelet.lists(RESOURCE))
    node.configure(rest='[container]\nmethod = "volume-mounts"\n')
    daemon.hang_up()
    given = admit(kubelet, "mounts")
    assert given.envs["NVIDIA_VISIBLE_DEVICES"] == "/var/run/nvidia-container-devices"
    assert given.envs["SGPUD_GPU_UUIDS"] in (A, B)
    assert len(kubelet.lists(RESOURCE)) == messages
    assert len(kubelet.attempts) == 1


def test_sgpud_reload_answers_with_the_difference(
    node: Node, daemon: Process, kubelet: StandInKubelet, held: set[str]
) -> None:
    assert held
    node.configure(4)
    shown = node.command("reload", "--run-dir", str(node.run))
    assert shown.returncode == 0
    assert "sharing.duplication_factor: 10 -> 4" in shown.stdout
    assert f"{RESOURCE} {A}: 10 -> 4 shares, 1 held and kept, 6 draining" in shown.stdout
    became(kubelet, RESOURCE, 8, 20)
    again = node.command("reload", "--json", "--run-dir", str(node.run))
    assert again.returncode == 0
    assert json.loads(again.stdout)["result"] == "unchanged"
    assert daemon.view()["counters"]["reloads"] == {"applied": 1, "unchanged": 1}


def test_an_invalid_file_changes_nothing_and_is_reported_everywhere(
    node: Node, daemon: Process, kubelet: StandInKubelet, held: set[str]
) -> None:
    messages = len(kubelet.lists(RESOURCE))
    mark = daemon.notices.mark
    node.write("[sharing]\nduplication_factor = 0\nresource = 7\n")
    shown = node.command("reload", "--run-dir", str(node.run))
    assert shown.returncode == 78
    assert f"{node.config}:2: sharing.duplication_factor: " in shown.stdout
    assert f"{node.config}:3: sharing.resource: " in shown.stdout
    daemon.notices.wait(lambda notice: "RELOADING" in notice, mark)
    daemon.ready(mark)
    daemon.status(lambda status: f"{node.config} is not in use (2 problems" in status)
    daemon.said(f"{node.config}:2: sharing.duplication_factor: ")
    found = json.loads(node.command("reload", "--json", "--run-dir", str(node.run)).stdout)
    assert (found["result"], len(found["problems"])) == ("refused", 2)
    seen = daemon.view()
    assert len(seen["configuration"]["problems"]) == 2
    assert seen["counters"]["reloads"] == {"refused": 2}
    assert held < kubelet.lists(RESOURCE)[-1].healthy == shares(10, 10)
    assert len(kubelet.lists(RESOURCE)) == messages
    node.configure(5)
    daemon.hang_up()
    became(kubelet, RESOURCE, 10, 20)
    assert daemon.view()["configuration"]["problems"] == []
