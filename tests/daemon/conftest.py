"""A node, its kubelet and its daemon, made anew for every test that asks for them."""

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN

pytest.register_assert_rewrite(
    *(f"tests.daemon.{name}" for name in ("freeing", "leaving", "stalling"))
)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show what the daemons said with a failure."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    node = getattr(item, "funcargs", {}).get("node")
    if report.failed and isinstance(node, Node):
        report.sections.append(("the daemons", node.logs()))


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as node:
        yield node


@pytest.fixture
def kubelet(node: Node) -> Iterator[StandInKubelet]:
    """The node's kubelet, running; the test fails if the real one had panicked."""
    with node.kubelet() as kubelet:
        yield kubelet


@pytest.fixture
def daemon(node: Node, kubelet: StandInKubelet) -> Process:
    """The node's daemon: 10 shares of each of two GPUs, listed by the kubelet."""
    process = node.start()
    kubelet.next_registration(WITHIN)
    kubelet.next_devices(RESOURCE, WITHIN)
    return process
