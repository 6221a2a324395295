"""Situations in which a pod has ended, and the daemon has to find out."""

from __future__ import annotations

import pytest

from sgpud.testing.kubelet.checkpoint import CheckpointFault
from sgpud.testing.kubelet.podresources import PodResourcesFault
from tests.daemon.node import RESOURCE, B, of
from tests.daemon.situations import DRAIN, FREED, SLACK, healthy, running
from tests.daemon.steps import admit, became


def a_finished_pod_frees_its_shares() -> None:
    with running() as (node, kubelet, process):
        held = set(admit(kubelet, "held", 2).ids[RESOURCE])
        # A daemon that did not grant them itself knows them from the books alone.
        process.end()
        node.configure(rest=f'[gpus]\ndeny = ["{B}"]\n')
        node.start()
        became(kubelet, RESOURCE, 11, 20)
        kubelet.terminate("uid-held")
        kubelet.wait_for(lambda k: not of(B, held) & healthy(k), FREED)
        kubelet.wait_for(lambda k: not of(B, k.devices(RESOURCE)), DRAIN + SLACK)
        assert kubelet.in_use(RESOURCE) == set()


def a_pod_that_ends_at_once_frees_its_shares() -> None:
    with running() as (node, kubelet, process):
        held = set(admit(kubelet, "held", 2).ids[RESOURCE])
        node.configure(rest='[gpus]\ndeny = ["*"]\n')
        process.hang_up()
        became(kubelet, RESOURCE, 2, 20)
        kubelet.terminate("uid-held")
        # The grant itself has to settle first.
        kubelet.wait_for(lambda k: not held & healthy(k), 10 + FREED)


def a_grant_is_held_as_long_as_the_books_are_old() -> None:
    with running() as (node, kubelet, process):
        kubelet.checkpoint.fault = CheckpointFault.STALE
        held = set(admit(kubelet, "held", 2).ids[RESOURCE])
        node.configure(rest='[gpus]\ndeny = ["*"]\n')
        process.hang_up()
        became(kubelet, RESOURCE, 2, 20)
        with pytest.raises(TimeoutError):
            kubelet.wait_for(lambda k: not held <= healthy(k), 13)


def without_podresources_the_next_admission_tells() -> None:
    with running() as (node, kubelet, process):
        kubelet.pod_resources.set_fault(PodResourcesFault.ABSENT)
        held = set(admit(kubelet, "held", 2).ids[RESOURCE])
        process.end()
        node.configure(1, sharing='placement = "packed"')
        node.start()
        became(kubelet, RESOURCE, 2, 20)
        kubelet.terminate("uid-held")
        with pytest.raises(TimeoutError):
            kubelet.wait_for(lambda k: not held <= healthy(k), 6)
        node.configure(2)
        node.processes[1].hang_up()
        became(kubelet, RESOURCE, 4, 20)
        admit(kubelet, "next")
        node.configure(rest='[gpus]\ndeny = ["*"]\n')
        node.processes[1].hang_up()
        became(kubelet, RESOURCE, 1, 20)


def _podresources(fault: PodResourcesFault) -> None:
    with running("debug") as (node, kubelet, process):
        held = set(admit(kubelet, "held", 2).ids[RESOURCE])
        process.end()
        kubelet.pod_resources.set_fault(fault)
        node.configure(rest=f'[gpus]\ndeny = ["{B}"]\n', level="debug")
        successor = node.start()
        became(kubelet, RESOURCE, 11, 20)
        kubelet.terminate("uid-held")
        successor.said("podresources cannot be asked: ", timeout=2 * FREED)
        assert held & healthy(kubelet) == held
        kubelet.pod_resources.set_fault(None)
        kubelet.wait_for(lambda k: not of(B, held) & healthy(k), FREED)


def podresources_that_hangs() -> None:
    _podresources(PodResourcesFault.HANGING)


def podresources_that_talks_garbage() -> None:
    _podresources(PodResourcesFault.GARBAGE)


def podresources_that_fails() -> None:
    _podresources(PodResourcesFault.FAILING)


SITUATIONS = (
    a_finished_pod_frees_its_shares,
    a_pod_that_ends_at_once_frees_its_shares,
    a_grant_is_held_as_long_as_the_books_are_old,
    without_podresources_the_next_admission_tells,
    podresources_that_hangs,
    podresources_that_talks_garbage,
    podresources_that_fails,
)
