"""What takes the daemon long: each situation is a test of its own, and all run at the same time.

The figures are the daemon's: shares drain for 30 s, a pool shows its empty list for 10 s, holders
are looked at every 5 s while something waits, a grant settles after 10 s, Register may take 15 s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from threading import Semaphore
from typing import TypeAlias

from sgpud.testing.kubelet.records import DeviceList
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.steps import became

Situation: TypeAlias = Callable[[], None]
FEW_AT_A_TIME = Semaphore(1)
"""To start daemons: all at once they would keep the other tests waiting."""
DRAIN = 30.0
EMPTY = 10.0
SLACK = 30.0
"""Seconds that many daemons on few processors may be late."""
LATE = 3.0
"""Seconds that one message may have taken longer to the kubelet than the next one."""
LATE_START = 3.0
"""Seconds from a daemon's first plan until the kubelet has its list."""
FREED = 45.0
"""Seconds until a finished pod's shares are free, while something waits."""


@contextmanager
def running(level: str = "info") -> Iterator[tuple[Node, StandInKubelet, Process]]:
    """A node with a kubelet, and a daemon that has listed 20 shares."""
    with Node() as node, node.kubelet() as kubelet:
        node.configure(level=level)
        with FEW_AT_A_TIME:
            process = node.start()
            kubelet.next_registration(WITHIN)
        became(kubelet, RESOURCE, 20, 20)
        yield node, kubelet, process


def seconds_to_leave(kubelet: StandInKubelet, resource: str, ids: Collection[str]) -> float:
    """Wait until these ids have left the list; the seconds that they were listed Unhealthy."""

    def left(message: DeviceList) -> bool:
        return not message.devices.keys() & set(ids)

    def leaving(message: DeviceList) -> bool:
        return set(ids) <= message.unhealthy

    kubelet.wait_for(lambda k: left(k.lists(resource)[-1]), DRAIN + 2 * SLACK)
    lists = kubelet.lists(resource)
    first = next(message for message in lists if leaving(message))
    return next(message for message in lists if left(message)).at - first.at


def healthy(kubelet: StandInKubelet, resource: str = RESOURCE) -> frozenset[str]:
    """What is listed Healthy."""
    return kubelet.lists(resource)[-1].healthy
