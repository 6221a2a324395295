"""A node whose GPUs are shared by memory, its kubelet, and daemons on it."""

from collections.abc import Iterator

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import Node


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as node:
        yield node


@pytest.fixture
def kubelet(node: Node) -> Iterator[StandInKubelet]:
    """The node's kubelet, running; the test fails if the real one had panicked."""
    with node.kubelet() as kubelet:
        yield kubelet
