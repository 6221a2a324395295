"""The fixtures of the tests with a real kubelet; without one every test here is skipped."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.kubelet import Kubelet
from tests.e2e.node import Assets, Node

LINES_SHOWN = 60


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the ends of the node's logs with a failure: their folder does not outlive the test."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    node = getattr(item, "funcargs", {}).get("node")
    if report.failed and isinstance(node, Node):
        for log in sorted(node.root.glob("*.log")):
            tail = log.read_text(errors="replace").splitlines()[-LINES_SHOWN:]
            report.sections.append((log.name, "\n".join(tail)))


@pytest.fixture(scope="session")
def assets() -> Assets:
    """The programs that SGPUD_KUBELET and SGPUD_KUBE_ASSETS name."""
    kubelet, folder = os.environ.get("SGPUD_KUBELET"), os.environ.get("SGPUD_KUBE_ASSETS")
    if not kubelet or not folder:
        pytest.skip("SGPUD_KUBELET and SGPUD_KUBE_ASSETS name no kubelet (tests/e2e/README.md)")
    if os.geteuid() != 0:
        pytest.skip("a kubelet needs root")
    found = Assets(Path(kubelet).resolve(), Path(folder).resolve())
    # Who asks for these tests by naming a kubelet wants them to run.
    assert not found.missing(), f"not there, or not executable: {', '.join(found.missing())}"
    return found


@pytest.fixture
def node(assets: Assets) -> Iterator[Node]:
    """A node with a containerd and no kubelet yet."""
    root = Path(tempfile.mkdtemp(prefix="sgpud-e2e-", dir="/tmp"))
    node = Node(root, assets)
    try:
        node.start()
        yield node
    finally:
        node.stop()
        shutil.rmtree(root)


@pytest.fixture
def kubelet(node: Node) -> Iterator[Kubelet]:
    """The node's kubelet, not started."""
    kubelet = Kubelet(node)
    yield kubelet
    kubelet.clear()


@pytest.fixture
def daemon(node: Node, kubelet: Kubelet) -> Iterator[Daemon]:
    """A daemon for the node, not started."""
    daemon = Daemon(node.root, kubelet.plugin_dir)
    yield daemon
    daemon.clear()


@pytest.fixture
def standby(node: Node, kubelet: Kubelet) -> Iterator[Daemon]:
    """A second daemon for the same node, not started."""
    daemon = Daemon(node.root, kubelet.plugin_dir, "standby")
    yield daemon
    daemon.clear()
