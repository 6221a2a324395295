"""How it ends, and what signals do at the wrong moment."""

import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import OTHER, RESOURCE, Node
from tests.daemon.process import Line, Process
from tests.daemon.record import WITHIN, tell
from tests.daemon.steps import admit, became


def test_sigterm_with_several_streams_open(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    node.configure(resource=OTHER)
    daemon.hang_up()
    became(kubelet, OTHER, 20, 20)
    streams = [kubelet.plugin(name).open_stream() for name in (RESOURCE, RESOURCE, OTHER)]
    for stream in streams:
        stream.next(WITHIN)
    node.has_endpoints(2)
    assert node.control.is_socket()
    took = daemon.end(signal.SIGTERM)
    tell(f"ended after {took * 1000:.0f} ms")
    assert node.endpoints() == set()
    assert not node.control.exists()
    assert "STOPPING" in daemon.notices.items[-1]
    assert kubelet.allocatable(RESOURCE) == 0
    for stream in streams:
        stream.wait_ended(WITHIN)


def test_sigint_is_the_same(node: Node, daemon: Process) -> None:
    daemon.end(signal.SIGINT)
    assert node.endpoints() == set()


def test_sigterm_while_register_hangs(node: Node, kubelet: StandInKubelet) -> None:
    gate = kubelet.faults.hang()
    process = node.start()
    gate.wait_reached(WITHIN)
    process.end()
    assert node.endpoints() == set()


def test_sigterm_before_there_is_anything_to_stop(node: Node) -> None:
    process = node.start()
    process.ready()
    process.end()


def test_a_second_sigterm_changes_nothing(node: Node, daemon: Process) -> None:
    daemon.send(signal.SIGTERM)
    daemon.notices.wait(lambda notice: "STOPPING" in notice)
    daemon.send(signal.SIGTERM)
    daemon.send(signal.SIGHUP)
    assert daemon.wait() == 0
    assert node.endpoints() == set()


def test_the_next_start_clears_what_a_kill_left(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    share = admit(kubelet, "held").ids[RESOURCE][0]
    (left,) = node.endpoints()
    other = node.plugin_dir / "nvidia-gpu.sock"
    other.touch()
    daemon.end(signal.SIGKILL)
    assert node.endpoints() == {left}
    assert node.control.is_socket()
    kubelet.skip()
    successor = node.start()
    endpoint = kubelet.next_registration(WITHIN).endpoint
    # Until the probe has answered, the free shares of the last known GPUs are withheld.
    became(kubelet, RESOURCE, 20, 20)
    successor.said(f"Removed sockets of an earlier run: {left}")
    assert node.endpoints() == {endpoint} != {left}
    assert other.exists()
    (pool,) = successor.view()["pools"]
    assert {gpu["uuid"]: gpu["held"] for gpu in pool["gpus"]}[share.partition("::")[0]] == 1


def test_sighup_while_it_starts_does_not_kill_it(node: Node, kubelet: StandInKubelet) -> None:
    # Every module tells when it has been imported: `argparse` right after the statement that
    # ignores the signal, `sgpud.service` as the last one.
    process = node.start(python=("-X", "importtime"))
    process.log.wait(lambda line: imported("argparse", line))
    sent = 0
    while not any(imported("sgpud.service", line) for line in process.log.items):
        mark = process.log.mark
        process.send(signal.SIGHUP)
        sent += 1
        process.log.wait(lambda _: True, mark)
    process.ready()
    tell(f"{sent} signals while it was importing")
    assert sent
    kubelet.next_registration(WITHIN)
    process.end()


def imported(module: str, line: Line) -> bool:
    return re.fullmatch(rf"import time:.*\| +{re.escape(module)}", line.text) is not None


def test_a_storm_of_reloads_while_containers_are_admitted(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    over = threading.Event()

    def storm() -> int:
        rounds = 0
        while not over.is_set():
            node.configure((30, 100, 60)[rounds % 3])
            daemon.hang_up()
            rounds += 1
        return rounds

    with ThreadPoolExecutor() as pool:
        rounds = pool.submit(storm)
        try:
            held = [
                share
                for number in range(40)
                for share in admit(kubelet, f"pod-{number}").ids[RESOURCE]
            ]
        finally:
            over.set()
        tell(f"{rounds.result(WITHIN)} reloads during 40 admissions")
    assert len(set(held)) == 40
    node.configure(100)
    daemon.hang_up()
    became(kubelet, RESOURCE, 200, 200)
    assert set(held) <= kubelet.lists(RESOURCE)[-1].healthy
    assert len(kubelet.attempts) == 1


def test_a_socket_that_cannot_be_removed_does_not_keep_the_lock(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    """Its folder has become a file: asking for the socket raises NotADirectoryError."""
    node.run.rename(node.root / "elsewhere")
    node.run.touch()
    daemon.end()
    assert node.endpoints() == set()
    kubelet.skip()
    node.start()
    became(kubelet, RESOURCE, 20, 20)


def test_a_storm_of_signals_is_a_few_reloads(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    mark = daemon.notices.mark
    began = time.monotonic()
    pause = threading.Event()
    for _ in range(4_000):
        daemon.send(signal.SIGHUP)
        pause.wait(0.0005)
    node.configure(4)
    daemon.hang_up()
    became(kubelet, RESOURCE, 8, 20)
    took = time.monotonic() - began
    reloads = sum("RELOADING" in notice for notice in daemon.notices.items[mark:])
    tell(f"4 000 signals in {took:.1f} s: {reloads} reloads")
    assert reloads <= 2 + took / 0.1
