"""What a real kubelet, and the containers that it starts, see of the daemon."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.e2e import absences
from tests.e2e.absences import Absence
from tests.e2e.daemon import GIB, RESOURCE, UUIDS, Daemon, shares
from tests.e2e.kubelet import HOSTNAME, NAMESPACE, Kubelet
from tests.e2e.node import Node
from tests.e2e.waiting import repeated, until
from tests.testing.kubelet.scripted import ScriptedPlugin

pytestmark = pytest.mark.e2e

ONE = {RESOURCE: 1}
SOON = 2.0
"""Seconds within which the end of a pod is noticed, and the name of a new one is known."""
BACK = 3.0
"""Seconds within which the shares are back after the end of a rival plugin."""
RIVALS = frozenset({"GPU-of-a-rival::0", "GPU-of-a-rival::1"})
ENDS = [signal.SIGTERM, signal.SIGKILL]


def listed(kubelet: Kubelet, expected: frozenset[str]) -> None:
    """Wait until the kubelet's allocatable is exactly these ids."""
    until(lambda: kubelet.allocatable(RESOURCE) == expected, f"{len(expected)} are allocatable")


def up(kubelet: Kubelet, daemon: Daemon) -> None:
    """Start both and wait for the shares."""
    kubelet.start()
    daemon.start()
    listed(kubelet, shares(100))


@pytest.mark.parametrize("daemon_first", [False, True])
def test_every_share_is_allocatable(kubelet: Kubelet, daemon: Daemon, daemon_first: bool) -> None:  # noqa: FBT001
    for part in (daemon, kubelet) if daemon_first else (kubelet, daemon):
        part.start()
    listed(kubelet, shares(100))
    assert frozenset(kubelet.checkpoint()["RegisteredDevices"][RESOURCE]) == shares(100)


def test_a_container_gets_its_gpu(kubelet: Kubelet, daemon: Daemon) -> None:
    up(kubelet, daemon)
    told = kubelet.run_pod("one", ONE)
    (share,) = kubelet.held(RESOURCE)["one"]
    assert share in shares(100)
    assert told["SGPUD_SHARES"] == "1"
    assert told["SGPUD_GPU_UUIDS"] == share.split("::")[0]
    assert told["SGPUD_GPU_MEMORY_BYTES"] == str(24 * GIB)
    (answer,) = kubelet.given("one")
    for name in ("SGPUD_SHARES", "SGPUD_GPU_UUIDS", "SGPUD_GPU_MEMORY_BYTES"):
        assert name.encode() in answer


def running(kubelet: Kubelet, pod: str) -> str:
    """The id of the pod's container, once the kubelet says that it runs."""
    return until(lambda: kubelet.container(pod), "the kubelet knows that the pod runs")


def test_pods_spread_over_the_gpus(kubelet: Kubelet, daemon: Daemon) -> None:
    up(kubelet, daemon)
    told = [kubelet.run_pod(f"pod{n}", ONE)["SGPUD_GPU_UUIDS"] for n in range(4)]
    assert Counter(told) == dict.fromkeys(UUIDS, 2)


def test_two_shares_are_two_gpus(kubelet: Kubelet, daemon: Daemon) -> None:
    up(kubelet, daemon)
    told = kubelet.run_pod("both", {RESOURCE: 2})
    assert sorted(told["SGPUD_GPU_UUIDS"].split(",")) == sorted(UUIDS)


@pytest.mark.parametrize("how", ENDS)
def test_the_kubelet_restarts(kubelet: Kubelet, daemon: Daemon, how: signal.Signals) -> None:
    up(kubelet, daemon)
    kubelet.run_pod("one", ONE)
    held, container = kubelet.held(RESOURCE)["one"], running(kubelet, "one")
    for _ in range(2):
        kubelet.stop(how)
        kubelet.start()
        listed(kubelet, shares(100))
    assert running(kubelet, "one") == container
    assert kubelet.held(RESOURCE)["one"] == held
    kubelet.run_pod("two", ONE)
    assert not kubelet.held(RESOURCE)["two"] & held


def test_a_pod_keeps_its_share_over_a_reboot(node: Node, kubelet: Kubelet, daemon: Daemon) -> None:
    up(kubelet, daemon)
    kubelet.run_pod("one", ONE)
    held, container = kubelet.held(RESOURCE)["one"], running(kubelet, "one")
    kubelet.stop(signal.SIGKILL)
    node.kill_containers()
    kubelet.start()
    again = until(lambda: kubelet.container("one") not in {"", container}, "the pod runs again")
    assert again
    assert kubelet.held(RESOURCE)["one"] == held


@pytest.mark.parametrize("how", ENDS)
def test_the_daemon_restarts(kubelet: Kubelet, daemon: Daemon, how: signal.Signals) -> None:
    up(kubelet, daemon)
    kubelet.run_pod("one", ONE)
    held, container = kubelet.held(RESOURCE)["one"], running(kubelet, "one")
    assert daemon.stop(how) == (0 if how == signal.SIGTERM else -how)
    listed(kubelet, frozenset())
    daemon.start()
    listed(kubelet, shares(100))
    assert running(kubelet, "one") == container
    assert kubelet.held(RESOURCE)["one"] == held
    kubelet.run_pod("two", ONE)
    assert not kubelet.held(RESOURCE)["two"] & held


def test_nothing_is_left_when_it_stops(kubelet: Kubelet, daemon: Daemon) -> None:
    up(kubelet, daemon)
    assert daemon.stop() == 0
    sockets = [path.name for path in kubelet.plugin_dir.iterdir() if path.is_socket()]
    assert sockets == ["kubelet.sock"]


@pytest.mark.parametrize("how", ENDS)
def test_a_standby_takes_over(
    kubelet: Kubelet, daemon: Daemon, standby: Daemon, how: signal.Signals
) -> None:
    up(kubelet, daemon)
    kubelet.run_pod("one", ONE)
    held = kubelet.held(RESOURCE)["one"]
    first, second = daemon, standby
    for _ in range(4):
        second.start()
        listed(kubelet, shares(100))
        first.stop(how)
        listed(kubelet, shares(100))
        first, second = second, first
    assert kubelet.held(RESOURCE)["one"] == held
    kubelet.run_pod("two", ONE)


def test_shrinking_and_growing_under_holders(kubelet: Kubelet, daemon: Daemon) -> None:
    up(kubelet, daemon)
    for name in ("one", "two"):
        kubelet.run_pod(name, {RESOURCE: 2})
    held = kubelet.held(RESOURCE)["one"] | kubelet.held(RESOURCE)["two"]
    daemon.reload(1)
    listed(kubelet, held)
    daemon.reload(3)
    until(lambda: len(kubelet.allocatable(RESOURCE)) == 6, "there is room for one more on each")
    kubelet.run_pod("three", {RESOURCE: 2})
    assert held | kubelet.held(RESOURCE)["three"] == kubelet.allocatable(RESOURCE)
    daemon.reload(100)
    until(lambda: len(kubelet.allocatable(RESOURCE)) == 200, "all shares are back")
    assert held < kubelet.allocatable(RESOURCE)


OTHER = "deepomatic.com/shared-other"
OTHER_RULE = f"""
[[gpu]]
match = "{UUIDS[1]}"
resource = "{OTHER}"
"""


def test_two_pools_serve_one_container(kubelet: Kubelet, daemon: Daemon) -> None:
    daemon.configure(100, OTHER_RULE)
    kubelet.start()
    daemon.start()
    until(lambda: len(kubelet.allocatable(RESOURCE)) == 100, "the first GPU is listed")
    until(lambda: len(kubelet.allocatable(OTHER)) == 100, "the second GPU is listed")
    told = kubelet.run_pod("both", {RESOURCE: 1, OTHER: 1})
    assert told["SGPUD_SHARED_GPU_GPU_UUIDS"] == UUIDS[0]
    assert told["SGPUD_SHARED_OTHER_GPU_UUIDS"] == UUIDS[1]


def test_a_gpu_changes_its_pool_under_a_holder(kubelet: Kubelet, daemon: Daemon) -> None:
    up(kubelet, daemon)
    kubelet.run_pod("both", {RESOURCE: 2})
    held = kubelet.held(RESOURCE)["both"]
    (moved,) = (share for share in held if share.startswith(UUIDS[1]))
    daemon.reload(100, OTHER_RULE)
    until(lambda: len(kubelet.allocatable(RESOURCE)) == 101, "only the held share stays behind")
    assert moved in kubelet.allocatable(RESOURCE)
    until(lambda: len(kubelet.allocatable(OTHER)) == 99, "the other pool has the rest")
    assert moved not in kubelet.allocatable(OTHER)
    assert kubelet.held(RESOURCE)["both"] == held


def test_holders_have_names_and_a_finished_pod_is_noticed(kubelet: Kubelet, daemon: Daemon) -> None:
    up(kubelet, daemon)
    kubelet.run_pod("short", {RESOURCE: 2})
    kubelet.run_pod("long", ONE)
    names = {f"{NAMESPACE}/{pod}-{HOSTNAME}/main" for pod in ("short", "long")}
    until(lambda: daemon.holders(RESOURCE) == names, "both holders have names", SOON)
    kubelet.remove_pod("short")
    rest = names - {f"{NAMESPACE}/short-{HOSTNAME}/main"}
    until(lambda: daemon.holders(RESOURCE) == rest, "the end of the pod is noticed", SOON)
    # Fewer shares are configured than are held: what the pod held is waited for.
    daemon.reload(1)
    until(lambda: len(kubelet.allocatable(RESOURCE)) == 2, "what the pod held is free", 40)
    assert daemon.holders(RESOURCE) == rest


@contextmanager
def rival(kubelet: Kubelet) -> Iterator[ScriptedPlugin]:
    """Another plugin of the daemon's resource, with two ids of its own; it has registered."""
    with ScriptedPlugin(kubelet.plugin_dir, "rival.sock", RESOURCE) as plugin:
        plugin.send(dict.fromkeys(RIVALS, True))
        plugin.register()
        listed(kubelet, RIVALS)
        yield plugin


def test_a_rival_that_registers_later_is_outlived(kubelet: Kubelet, daemon: Daemon) -> None:
    up(kubelet, daemon)
    with rival(kubelet):
        until(lambda: "superseded" in daemon.registration(RESOURCE), "the rival is seen", SOON)
        daemon.reload(50)
        assert kubelet.allocatable(RESOURCE) == RIVALS
    until(lambda: kubelet.allocatable(RESOURCE) == shares(50), "the shares are back", BACK)
    assert kubelet.run_pod("after", ONE)["SGPUD_SHARES"] == "1"


def test_a_rival_that_was_there_first_is_outlived(kubelet: Kubelet, daemon: Daemon) -> None:
    kubelet.start()
    with rival(kubelet):
        daemon.start()
        listed(kubelet, shares(100))
    until(lambda: kubelet.allocatable(RESOURCE) == shares(100), "the shares are back", BACK)
    assert kubelet.run_pod("after", ONE)["SGPUD_SHARES"] == "1"


@contextmanager
def storm(daemon: Daemon, factors: Sequence[int], rest: str) -> Iterator[list[int]]:
    """Change the configuration and send SIGHUP 100 times a second while the block runs."""
    sent: list[int] = []

    def blow() -> None:
        sent.append(factors[len(sent) % len(factors)])
        daemon.configure(sent[-1], rest)
        daemon.hang_up()

    with repeated(blow, 0.01):
        yield sent


def test_a_storm_of_reloads_under_holders(kubelet: Kubelet, daemon: Daemon) -> None:
    freely = 'multiple = "any"\n'
    daemon.configure(100, freely)
    up(kubelet, daemon)
    # Shares given when many others were held have numbers that a smaller factor would not list.
    kubelet.run_pod("filler", {RESOURCE: 40})
    kubelet.run_pod("before", {RESOURCE: 2})
    kubelet.remove_pod("filler")
    # While the filler counts as a holder a small factor leaves no share free.
    daemon.reload(10, freely)
    until(lambda: len(kubelet.allocatable(RESOURCE)) == 20, "the filler is seen to be gone", 60)
    held, container = kubelet.held(RESOURCE)["before"], kubelet.container("before")
    with (
        absences.watched(kubelet, RESOURCE) as seen,
        storm(daemon, (100, 10, 50), freely) as sent,
    ):
        for number in range(5):
            kubelet.run_pod(f"during{number}", ONE)
    assert len(sent) > 50
    assert len(seen.samples) > 50
    assert min(len(sample.ids) for sample in seen.samples) >= 20
    assert seen.longest(held) == Absence()
    daemon.configure(100, freely)
    daemon.hang_up()
    until(lambda: len(kubelet.allocatable(RESOURCE)) == 200, "all shares are back")
    assert kubelet.held(RESOURCE)["before"] == held
    assert kubelet.container("before") == container
