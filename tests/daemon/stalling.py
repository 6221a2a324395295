"""Situations in which something does not happen that should."""

from __future__ import annotations

import pytest

from tests.daemon.node import RESOURCE, Node
from tests.daemon.record import WITHIN
from tests.daemon.situations import LATE, SLACK, running
from tests.daemon.steps import admit, became


def a_stream_that_is_never_opened_is_a_loss() -> None:
    with Node() as node, node.kubelet() as kubelet:
        kubelet.faults.never_follow()
        process = node.start()
        first, second = (kubelet.next_attempt(4 * WITHIN) for _ in range(2))
        assert 5 <= second.at - first.at + LATE < 5 + SLACK
        assert first.endpoint != second.endpoint
        became(kubelet, RESOURCE, 20, 20)
        process.said("registered, but the kubelet opened no stream")


def register_that_hangs_is_given_up_and_tried_again() -> None:
    with Node() as node, node.kubelet() as kubelet:
        gate = kubelet.faults.hang()
        process = node.start()
        first, second = (kubelet.next_attempt(4 * WITHIN) for _ in range(2))
        assert 15 <= second.at - first.at + LATE < 15 + SLACK
        became(kubelet, RESOURCE, 20, 20)
        process.said("DEADLINE_EXCEEDED")
        gate.release()


def an_answer_that_never_comes_cuts_no_stream() -> None:
    with Node() as node, node.kubelet() as kubelet:
        gate = kubelet.faults.hang_answer()
        node.start()
        gate.wait_reached(4 * WITHIN)
        kubelet.next_attempt(WITHIN)
        became(kubelet, RESOURCE, 20, 20)
        with pytest.raises(TimeoutError):
            kubelet.next_attempt(17)
        assert kubelet.registered(RESOURCE)
        assert admit(kubelet, "pod").ids[RESOURCE]
        gate.release()


def a_control_socket_that_was_taken_away_is_made_anew() -> None:
    with running() as (node, _, process):
        node.control.unlink()
        process.said("was removed; recreating it")
        # The warning comes in the same breath as the new socket; the reload in a later one.
        process.hang_up()
        assert process.view()["version"]


SITUATIONS = (
    a_stream_that_is_never_opened_is_a_loss,
    register_that_hangs_is_given_up_and_tried_again,
    an_answer_that_never_comes_cuts_no_stream,
    a_control_socket_that_was_taken_away_is_made_anew,
)
