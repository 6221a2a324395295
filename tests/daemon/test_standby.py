"""Two on one directory: the second waits, ready, and takes over when the first has ended."""

import signal
import threading
from itertools import takewhile

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node, shares
from tests.daemon.process import Process
from tests.daemon.record import WITHIN, tell
from tests.daemon.steps import admit, became
from tests.daemon.web import free_port, get

STANDBY = "standby: another sgpud serves the plugin directory"


@pytest.fixture
def standby(node: Node, daemon: Process) -> Process:
    """A second one, ready and waiting for the first."""
    assert daemon.running
    process = node.start()
    process.ready()
    process.status(lambda status: STANDBY in status and "0 held, 20 free" in status)
    return process


def test_it_says_whom_it_waits_for_and_is_ready(
    node: Node, standby: Process, kubelet: StandInKubelet
) -> None:
    standby.said(f"Another sgpud serves {node.plugin_dir}; standing by")
    assert len(kubelet.attempts) == 1
    node.has_endpoints(1)
    standby.end()
    assert kubelet.registered(RESOURCE)
    assert node.control.is_socket()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_takes_over(
    node: Node,
    daemon: Process,
    standby: Process,
    kubelet: StandInKubelet,
    how: signal.Signals,
) -> None:
    held = set(admit(kubelet, "held", 2).ids[RESOURCE])
    # The list that counts is the one on the new stream, after the first one's end.
    mark = len(kubelet.lists(RESOURCE))
    kubelet.skip()
    daemon.end(how)
    registration = kubelet.next_registration(WITHIN)
    message = kubelet.next_devices(RESOURCE, WITHIN)
    tell(
        f"{how.name}: registered {(registration.at - daemon.ended) * 1000:.0f} ms and listed"
        f" {(message.at - daemon.ended) * 1000:.0f} ms after the first one's end"
    )
    assert message.healthy == shares(10, 10)
    assert held <= message.healthy
    assert len(kubelet.lists(RESOURCE)) == mark + 1
    assert node.endpoints() == {registration.endpoint}
    standby.status(
        lambda status: (
            status == f"{RESOURCE}: registered, 2 held, 18 free on 2 GPUs (20 allocatable)"
        )
    )
    assert admit(kubelet, "next").ids[RESOURCE][0] not in held


def test_the_control_socket_moves_to_the_new_owner(
    node: Node, daemon: Process, standby: Process, kubelet: StandInKubelet
) -> None:
    node.configure(4)
    assert daemon.ask("reload")["result"] == "applied"
    assert daemon.view()["counters"]["reloads"] == {"applied": 1}
    kubelet.skip()
    daemon.end()
    kubelet.next_registration(WITHIN)
    assert standby.view()["counters"]["reloads"] == {}
    # Nobody told it of the reload, and it has the file as it is now all the same.
    became(kubelet, RESOURCE, 8, 20)
    standby.end()
    assert not node.control.exists()


def test_no_wait_ends_with_75(node: Node, daemon: Process, kubelet: StandInKubelet) -> None:
    second = node.start("--no-wait")
    assert second.wait() == 75
    second.said("Not waiting for it (--no-wait)")
    assert daemon.running
    assert kubelet.registered(RESOURCE)


def test_a_standby_that_waits_reloads_what_it_will_use(
    node: Node, daemon: Process, standby: Process, kubelet: StandInKubelet
) -> None:
    kept = (node.state / "last-good.toml").read_bytes()
    node.configure(4)
    standby.hang_up()
    assert kubelet.allocatable(RESOURCE) == 20
    assert (node.state / "last-good.toml").read_bytes() == kept
    daemon.end()
    # The ids that the kubelet knew of the first one drain under the second.
    became(kubelet, RESOURCE, 8, 20)


def test_a_standby_without_gpus_is_ready_once_it_can_say_why(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    assert daemon.running
    second = node.start(fake_gpus=False, environment={"LD_LIBRARY_PATH": str(node.root)})
    second.ready()
    before = list(takewhile(lambda notice: "READY" not in notice, second.notices.items))
    assert STANDBY in before[-1]["STATUS"]
    # The fault and what to do; or what there is, on a machine with a driver.
    assert "waiting for GPUs" not in before[-1]["STATUS"]
    assert len(kubelet.attempts) == 1


def test_a_third_one_waits_as_well(
    node: Node, daemon: Process, standby: Process, kubelet: StandInKubelet
) -> None:
    third = node.start()
    third.status(lambda status: STANDBY in status)
    for number, process in enumerate((daemon, standby), 1):
        kubelet.skip()
        process.end(signal.SIGKILL)
        kubelet.next_registration(WITHIN)
        became(kubelet, RESOURCE, 20, 20)
        assert len(kubelet.registrations) == 1 + number
    node.has_endpoints(1)


def test_one_of_two_serves_a_directory_that_was_replaced(
    node: Node, daemon: Process, standby: Process, kubelet: StandInKubelet
) -> None:
    share = admit(kubelet, "held").ids[RESOURCE][0]
    kubelet.skip()
    kubelet.disk.replace()
    kubelet.restart()
    kubelet.next_registration(WITHIN)
    kubelet.wait_for(lambda k: k.allocatable(RESOURCE) == 20, WITHIN)
    node.has_endpoints(1)
    daemon.end()
    standby.status(lambda status: "registered" in status)
    kubelet.wait_for(lambda k: k.allocatable(RESOURCE) == 20, WITHIN)
    node.has_endpoints(1)
    assert kubelet.devices(RESOURCE)[share].health == "Healthy"


def test_no_scrape_is_lost_over_a_handover(node: Node, kubelet: StandInKubelet) -> None:
    port = free_port()
    node.configure(rest=f'[http]\nlisten = "tcp:{port}:interface=127.0.0.1"')
    first = node.start()
    first.said("Serving HTTP at")
    became(kubelet, RESOURCE, 20, 20)
    second = node.start()
    second.ready()
    stopped, scraped = threading.Event(), list[int]()
    failed: list[Exception] = []

    def scrape() -> None:
        while not stopped.wait(0.002):
            try:
                scraped.append(get(port, "/metrics")[0])
            except OSError as problem:  # noqa: PERF203 - each of them counts
                failed.append(problem)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        first.end()
        second.said("Serving HTTP at")
        became(kubelet, RESOURCE, 20, 20)
    finally:
        stopped.set()
        thread.join(WITHIN)
    tell(f"{len(scraped)} scrapes, {len(failed)} failed: {failed[:3]}")
    assert set(scraped) == {200}
    assert failed == []
    assert b"sgpud_serving 1.0" in get(port, "/metrics")[1]
