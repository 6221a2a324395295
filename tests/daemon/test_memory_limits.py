"""Memory limits as the kubelet sees them: whether it is to ask, and what it is told."""

from __future__ import annotations

import pytest

from sgpud.testing.kubelet.records import PreStartError
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import Node
from tests.daemon.record import WITHIN
from tests.daemon.steps import admit, until_it_holds

MEMORY = "deepomatic.com/shared-gpu-memory"


def configured(node: Node, memory: str) -> None:
    sharing = f'share_memory = "1GiB"\n[limits]\nmemory = "{memory}"'
    node.configure(resource=MEMORY, sharing=sharing)


def test_without_a_helper_the_kubelet_does_not_ask(node: Node, kubelet: StandInKubelet) -> None:
    """A container can then restart while sgpud is away."""
    configured(node, "auto")
    node.start()
    kubelet.next_devices(MEMORY, WITHIN)
    assert [each.pre_start for each in kubelet.registrations] == [False]


def test_with_require_a_container_waits_and_is_told_why(
    node: Node, kubelet: StandInKubelet
) -> None:
    configured(node, "require")
    node.start()
    kubelet.next_devices(MEMORY, WITHIN)
    assert [each.pre_start for each in kubelet.registrations] == [True]
    admit(kubelet, "one", resource=MEMORY)
    with pytest.raises(PreStartError, match="it is a fake GPU") as caught:
        kubelet.prestart("uid-one", "main")
    assert '[limits] memory is "require"' in str(caught.value)
    answer = " ".join(until_it_holds(node, "uid-one")["answer"])
    assert "A container of it waits" in answer
    assert "it is a fake GPU. The kubelet tries again." in answer
