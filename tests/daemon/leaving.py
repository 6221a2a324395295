"""Situations in which shares and pools leave: by the daemon's clock, not by a test's."""

from __future__ import annotations

import signal

import pytest

from sgpud.testing.kubelet.checkpoint import CheckpointFault
from tests.daemon.node import OTHER, RESOURCE, A, of, shares
from tests.daemon.record import WITHIN
from tests.daemon.situations import (
    DRAIN,
    EMPTY,
    LATE,
    LATE_START,
    SLACK,
    healthy,
    running,
    seconds_to_leave,
)
from tests.daemon.steps import RULE, admit, became


def what_is_too_many_leaves_after_half_a_minute() -> None:
    with running() as (node, kubelet, process):
        held = set(admit(kubelet, "held", 2).ids[RESOURCE])
        node.configure(3)
        process.hang_up()
        became(kubelet, RESOURCE, 6, 20)
        took = seconds_to_leave(kubelet, RESOURCE, shares(10, 10) - healthy(kubelet))
        assert DRAIN <= took + LATE < DRAIN + SLACK
        assert held < healthy(kubelet)
        assert kubelet.capacity(RESOURCE) == 6
        assert len(kubelet.attempts) == 1


def a_late_grant_keeps_its_draining_share() -> None:
    with running() as (node, kubelet, process):
        node.configure(rest='[gpus]\ndeny = ["*"]\n')
        process.hang_up()
        became(kubelet, RESOURCE, 0, 20)
        late = min(of(A, shares(10)))
        assert kubelet.plugin(RESOURCE).allocate((late,), WITHIN).container_responses
        kubelet.wait_for(lambda k: k.capacity(RESOURCE) == 1, DRAIN + SLACK)
        # Nobody ever wrote it into the books: it goes on being held until they are newer.
        assert healthy(kubelet) <= {late}


def a_pool_that_is_gone_shows_an_empty_list_and_then_retires() -> None:
    with running() as (node, kubelet, process):
        node.configure(resource=OTHER)
        process.hang_up()
        kubelet.wait_for(lambda k: k.registered(OTHER), WITHIN)
        took = seconds_to_leave(kubelet, RESOURCE, shares(10, 10))
        assert DRAIN <= took + LATE < DRAIN + SLACK
        assert kubelet.capacity(RESOURCE) == 0
        node.has_endpoints(2)
        kubelet.wait_for(lambda k: not k.registered(RESOURCE), EMPTY + SLACK)
        process.status(lambda status: RESOURCE not in status)
        node.has_endpoints(1)
        assert [attempt.resource for attempt in kubelet.attempts] == [RESOURCE, OTHER]
        assert kubelet.allocatable(OTHER) == 20


def two_pools_that_go_at_once_without_a_kubelet() -> None:
    with running() as (node, kubelet, process):
        node.configure(rest=RULE)
        process.hang_up()
        became(kubelet, OTHER, 4, 4)
        kubelet.stop()
        process.status(
            lambda status: f"{OTHER}: no kubelet, 0 held, 4 free on 1 GPU (4 allocatable)" in status
        )
        node.configure(resource="example.com/third")
        process.hang_up()
        process.status(
            lambda status: (
                status.startswith("example.com/third: no kubelet, 0 held") and "; " not in status
            ),
            DRAIN + EMPTY + SLACK,
        )
        kubelet.start()
        became(kubelet, "example.com/third", 20, 20)


def a_renamed_pool_goes_on_for_its_holders_over_a_restart() -> None:
    with running() as (node, kubelet, process):
        held = set(admit(kubelet, "held", 2).ids[RESOURCE])
        process.end(signal.SIGKILL)
        kubelet.skip()
        node.configure(resource=OTHER)
        successor = node.start()
        kubelet.wait_for(lambda k: k.registered(OTHER) and k.registered(RESOURCE), WITHIN)
        became(kubelet, RESOURCE, 2, 20)
        became(kubelet, OTHER, 18, 18)
        took = seconds_to_leave(kubelet, RESOURCE, shares(10, 10) - held)
        assert DRAIN <= took + LATE_START < DRAIN + SLACK
        assert healthy(kubelet) == held
        assert not kubelet.devices(OTHER).keys() & held
        # The container's pod comes back after a reboot: its shares are there.
        kubelet.reboot()
        became(kubelet, RESOURCE, 2, 2)
        assert kubelet.readmit("uid-held")[0].ids[RESOURCE]
        successor.end()


def what_the_kubelet_knew_drains_after_a_restart() -> None:
    with running() as (node, kubelet, process):
        process.end()
        node.configure(3)
        node.start()
        became(kubelet, RESOURCE, 6, 20)
        took = seconds_to_leave(kubelet, RESOURCE, shares(10, 10) - shares(3, 3))
        assert DRAIN <= took + LATE_START < DRAIN + SLACK


def nothing_leaves_while_the_checkpoint_cannot_be_read() -> None:
    with running() as (node, kubelet, process):
        held = set(admit(kubelet, "held", 2).ids[RESOURCE])
        process.status(lambda status: "2 held" in status)
        kubelet.checkpoint.fault = CheckpointFault.CORRUPT
        node.configure(rest=f'[gpus]\ndeny = ["{A}"]\n')
        process.hang_up()
        became(kubelet, RESOURCE, 11, 20)
        process.said("The kubelet's checkpoint cannot be read")
        assert "kubelet_internal_checkpoint" in process.view()["holders"]
        with pytest.raises(TimeoutError):
            kubelet.wait_for(lambda k: k.capacity(RESOURCE) < 20, DRAIN + 3)
        assert held < healthy(kubelet)
        kubelet.checkpoint.fault = None
        admit(kubelet, "next")
        kubelet.wait_for(lambda k: k.capacity(RESOURCE) == 11, WITHIN)
        process.said("can be read again")
        assert held < healthy(kubelet)


SITUATIONS = (
    what_is_too_many_leaves_after_half_a_minute,
    a_late_grant_keeps_its_draining_share,
    a_pool_that_is_gone_shows_an_empty_list_and_then_retires,
    two_pools_that_go_at_once_without_a_kubelet,
    a_renamed_pool_goes_on_for_its_holders_over_a_restart,
    what_the_kubelet_knew_drains_after_a_restart,
    nothing_leaves_while_the_checkpoint_cannot_be_read,
)
