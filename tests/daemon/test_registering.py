"""A kubelet and a daemon find each other, whoever comes first and whatever goes wrong."""

from itertools import pairwise

import grpc

from sgpud.core.registration.machine import backoff
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.steps import ALL, admitted, listed


def test_the_kubelet_is_there_first(node: Node, kubelet: StandInKubelet) -> None:
    process = node.start()
    listed(kubelet)
    assert process.status(lambda status: "registered" in status) == (
        f"{RESOURCE}: registered, 0 held, 20 free on 2 GPUs (20 allocatable)"
    )
    assert [attempt.version for attempt in kubelet.attempts] == ["v1beta1"]
    assert kubelet.registrations[0].preferred
    assert not kubelet.registrations[0].pre_start
    assert admitted(kubelet) in ALL


def test_the_daemon_is_there_first(node: Node) -> None:
    node.plugin_dir.mkdir()
    process = node.start()
    process.ready()
    process.status(lambda status: "no kubelet" in status)
    with node.kubelet() as kubelet:
        listed(kubelet)
        assert len(kubelet.attempts) == 1


def test_a_touched_socket_cuts_no_live_stream(daemon: Process, kubelet: StandInKubelet) -> None:
    kubelet.disk.touch_socket()
    kubelet.disk.chmod_socket(0o600)
    # The daemon looks at the directory before it answers what comes later over the same reactor.
    daemon.hang_up()
    admitted(kubelet)
    daemon.hang_up()
    assert kubelet.registered(RESOURCE)
    assert len(kubelet.attempts) == 1
    assert len(kubelet.lists(RESOURCE)) == 1


def test_its_own_socket_is_deleted_under_a_live_stream(
    daemon: Process, kubelet: StandInKubelet
) -> None:
    first = kubelet.registrations[0].endpoint
    kubelet.disk.delete_endpoint(first)
    daemon.hang_up()
    admitted(kubelet)
    assert len(kubelet.attempts) == 1
    kubelet.drop(RESOURCE)
    listed(kubelet)
    assert kubelet.registrations[1].endpoint != first


def test_its_own_socket_is_deleted_before_the_kubelet_dials(node: Node) -> None:
    with node.kubelet(dial_timeout=0.5) as kubelet:
        gate = kubelet.faults.hang()
        process = node.start()
        attempt = kubelet.next_attempt(WITHIN)
        gate.wait_reached(WITHIN)
        kubelet.disk.delete_endpoint(attempt.endpoint)
        gate.release()
        listed(kubelet)
        process.said("not registered: Register: UNKNOWN: cannot connect to")


def test_a_refusal_is_tried_again_no_faster_than_the_back_off(
    node: Node, kubelet: StandInKubelet
) -> None:
    kubelet.faults.refuse(4, message="the disk is full")
    process = node.start()
    listed(kubelet)
    waits = [after.at - before.at for before, after in pairwise(kubelet.attempts)]
    assert [wait >= backoff(number) for number, wait in enumerate(waits, 1)] == [True] * 4
    assert len({attempt.endpoint for attempt in kubelet.attempts}) == 5
    process.said("not registered: Register: UNKNOWN: the disk is full (try 1)")
    told = [line for line in process.log.items if "the disk is full" in line.message]
    assert len(told) == 1
    process.status(lambda status: "registered, 0 held, 20 free on 2 GPUs" in status)


def test_a_kubelet_of_another_version_is_asked_again(node: Node, kubelet: StandInKubelet) -> None:
    kubelet.faults.wrong_version(2)
    process = node.start()
    listed(kubelet)
    assert len(kubelet.attempts) == 3
    process.said('"v1beta1" is not supported by this kubelet')


def test_the_kubelet_restarts_in_the_middle_of_register(
    node: Node, kubelet: StandInKubelet
) -> None:
    gate = kubelet.faults.hang()
    node.start()
    gate.wait_reached(WITHIN)
    kubelet.restart()
    listed(kubelet)


def test_the_kubelet_restarts_with_the_stream_open_and_register_unanswered(
    node: Node, kubelet: StandInKubelet
) -> None:
    gate = kubelet.faults.hang_answer()
    process = node.start()
    gate.wait_reached(WITHIN)
    listed(kubelet)
    process.status(lambda status: "registered" in status)
    admitted(kubelet)
    kubelet.restart()
    listed(kubelet)


def test_a_dropped_stream_is_a_loss(daemon: Process, kubelet: StandInKubelet) -> None:
    share = admitted(kubelet)
    kubelet.drop(RESOURCE)
    listed(kubelet)
    daemon.said("the kubelet ended the stream; registering again")
    assert kubelet.devices(RESOURCE)[share].health == "Healthy"


def test_a_stale_kubelet_socket_is_not_a_kubelet(daemon: Process, kubelet: StandInKubelet) -> None:
    kubelet.stop(leave_socket=True)
    daemon.said("not registered")
    kubelet.start()
    listed(kubelet)


def test_the_streams_of_others_never_end_the_kubelet_s(
    daemon: Process, node: Node, kubelet: StandInKubelet
) -> None:
    plugin = kubelet.plugin(RESOURCE)
    for _ in range(2):
        plugin.open_stream().next(WITHIN)
    for _ in range(9):
        assert plugin.open_stream().wait_ended(WITHIN)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    node.configure(5)
    daemon.hang_up()
    kubelet.wait_for(lambda k: k.allocatable(RESOURCE) == 10, WITHIN)
    assert len(kubelet.attempts) == 1
    assert plugin.allocate((f"{min(ALL)}",), WITHIN).container_responses


def test_a_slow_reader_delays_no_other_and_then_gets_the_latest(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    kubelet.plugin(RESOURCE).reading.clear()
    for factor in (5000, 9000, 8000, 7000, 30):
        node.configure(factor)
        assert daemon.ask("reload")["result"] == "applied"
    answer = kubelet.plugin(RESOURCE).allocate(tuple(sorted(ALL))[:1], WITHIN)
    assert answer.container_responses
    kubelet.plugin(RESOURCE).reading.set()
    kubelet.wait_for(lambda k: k.allocatable(RESOURCE) == 60, WITHIN)
    assert len(kubelet.attempts) == 1
    kubelet.plugin(RESOURCE).reading.clear()
    node.configure(9000)
    daemon.ask("reload")
    daemon.end()
