"""A change at each point of an admission loses nothing: no pod, no chosen share, no kubelet."""

import signal
from collections.abc import Callable
from functools import partial

import pytest

from sgpud.testing.kubelet.records import Container, KubeletRestarted, Pause
from sgpud.testing.kubelet.stand_in import StandInKubelet
from sgpud.testing.kubelet.view import KubeletView
from tests.daemon.node import OTHER, RESOURCE, Node, shares
from tests.daemon.process import Process
from tests.daemon.record import WITHIN

Change = Callable[[Node, Process], object]


def shrink(node: Node, daemon: Process) -> None:
    node.configure(1, sharing='placement = "packed"')
    daemon.hang_up()


def deny_all(node: Node, daemon: Process) -> None:
    node.configure(rest='[gpus]\ndeny = ["*"]\n')
    daemon.hang_up()


def rename(node: Node, daemon: Process) -> None:
    node.configure(resource=OTHER)
    daemon.hang_up()


def there_and_back(node: Node, daemon: Process) -> None:
    rename(node, daemon)
    node.configure()
    daemon.hang_up()


def let_go(_: Node, daemon: Process) -> None:
    assert daemon.ask("release") == {"released": True}


CHANGES = [shrink, deny_all, rename, there_and_back, let_go]


def admit_with(
    kubelet: StandInKubelet, pause: Pause, change: Callable[[], object], pod: str = "pod"
) -> Container:
    """Admit a container with a share of each GPU, and a change at a point of its admission."""
    return kubelet.admit(
        f"uid-{pod}",
        "default",
        pod,
        "main",
        {RESOURCE: 2},
        pauses={pause: lambda _: change()},
        timeout=WITHIN,
    )


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_at_each_point(
    node: Node, daemon: Process, kubelet: StandInKubelet, change: Change
) -> None:
    # The first shares are taken: those that a smaller number would keep.
    admit_with(kubelet, Pause.BEFORE_ALLOCATE, lambda: None, "first")
    for pause in Pause:
        container = admit_with(kubelet, pause, partial(change, node, daemon), pause.name)
        ids = set(container.ids[RESOURCE])
        kubelet.wait_for(partial(lists_healthy, ids=ids), WITHIN)
        node.configure()
        daemon.hang_up()
        daemon.ask("acquire")
        kubelet.wait_for(lambda k: k.allocatable(RESOURCE) == 20, WITHIN)


def lists_healthy(kubelet: KubeletView, *, ids: set[str]) -> bool:
    return ids <= healthy(kubelet)


def healthy(kubelet: KubeletView) -> set[str]:
    return {i for i, listed in kubelet.devices(RESOURCE).items() if listed.health == "Healthy"}


def test_a_grant_counts_as_held_before_it_is_in_the_books(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    shown: list[dict[str, int]] = []

    def look() -> None:
        deny_all(node, daemon)
        (pool,) = daemon.view()["pools"]
        shown.append({gpu["uuid"]: gpu["held"] for gpu in pool["gpus"]})

    container = admit_with(kubelet, Pause.BEFORE_CHECKPOINT, look)
    assert list(shown[0].values()) == [1, 1]
    assert healthy(kubelet) == set(container.ids[RESOURCE])


def test_the_last_share_of_every_gpu_while_it_is_taken_away(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    for number in range(9):
        admit_with(kubelet, Pause.BEFORE_ALLOCATE, lambda: None, f"pod-{number}")
    container = admit_with(kubelet, Pause.BEFORE_ALLOCATE, lambda: shrink(node, daemon))
    assert set(container.ids[RESOURCE]) == {i for i in shares(10, 10) if i.endswith("::9")}
    kubelet.wait_for(lambda k: healthy(k) == shares(10, 10), WITHIN)


@pytest.mark.parametrize("pause", [Pause.AFTER_ALLOCATE, Pause.BEFORE_CHECKPOINT])
def test_another_daemon_takes_over_with_another_configuration(
    node: Node, daemon: Process, kubelet: StandInKubelet, pause: Pause
) -> None:
    node.configure(rest='[gpus]\ndeny = ["*"]\n')
    standby = node.start()
    standby.ready()
    kubelet.skip()

    def take_over() -> None:
        daemon.end(signal.SIGKILL)
        kubelet.next_registration(WITHIN)
        kubelet.next_devices(RESOURCE, WITHIN)

    container = admit_with(kubelet, pause, take_over)
    kubelet.wait_for(partial(lists_healthy, ids=set(container.ids[RESOURCE])), WITHIN)
    assert healthy(kubelet) == set(container.ids[RESOURCE])


def test_the_kubelet_restarts_after_allocate_and_before_its_checkpoint(
    daemon: Process, kubelet: StandInKubelet
) -> None:
    with pytest.raises(KubeletRestarted):
        admit_with(kubelet, Pause.BEFORE_CHECKPOINT, kubelet.restart)
    kubelet.wait_for(lambda k: k.allocatable(RESOURCE) == 20, WITHIN)
    daemon.hang_up()
    # Nobody's any more, but nobody can know that yet: held until the books are old enough.
    (pool,) = daemon.view()["pools"]
    assert sum(gpu["held"] for gpu in pool["gpus"]) == 2
    assert kubelet.readmit("uid-pod", timeout=WITHIN)[0].ids[RESOURCE]
