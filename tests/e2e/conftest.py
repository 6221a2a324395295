"""The fixtures of the tests with a real kubelet; without one every test here is skipped."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import cluster as clusters
from tests.e2e.cluster import Cluster
from tests.e2e.daemon import Daemon
from tests.e2e.kubelet import Kubelet
from tests.e2e.node import Assets, Node
from tests.e2e.sgpud_image import built

LINES_SHOWN = 60


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the ends of the node's logs with a failure: their folder does not outlive the test."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    used = getattr(item, "funcargs", {})
    node = used["cluster"].node if "cluster" in used else used.get("node")
    if report.failed and isinstance(node, Node):
        for log in sorted(node.root.glob("*.log")):
            tail = log.read_text(errors="replace").splitlines()[-LINES_SHOWN:]
            report.sections.append((log.name, "\n".join(tail)))


@pytest.fixture(scope="session")
def assets() -> Assets:
    """The programs that SGPUD_KUBELET and SGPUD_KUBE_ASSETS name."""
    folder = os.environ.get("SGPUD_KUBE_ASSETS")
    if not folder:
        pytest.skip("SGPUD_KUBE_ASSETS names no folder with a kubelet (tests/e2e/README.md)")
    if os.geteuid() != 0:
        pytest.skip("a kubelet needs root")
    kubelet = os.environ.get("SGPUD_KUBELET") or f"{folder}/kubelet"
    found = Assets(Path(kubelet).resolve(), Path(folder).resolve())
    # Who asks for these tests by naming a kubelet wants them to run.
    assert not found.missing(), f"not there, or not executable: {', '.join(found.missing())}"
    return found


@pytest.fixture(scope="session")
def cluster_assets(assets: Assets) -> Assets:
    """The same, where a cluster's programs are among them."""
    if lacking := clusters.missing(assets):
        pytest.skip(f"SGPUD_KUBE_ASSETS lacks {', '.join(lacking)} (tests/e2e/README.md)")
    return assets


@pytest.fixture(scope="session")
def sgpud_image(
    cluster_assets: Assets,  # noqa: ARG001 - nothing is built where nothing is to use it
    need_tool: Callable[[str], str],
) -> Iterator[Path]:
    """An archive of sgpud's image: the one that SGPUD_IMAGE_ARCHIVE names, or one made here."""
    if named := os.environ.get("SGPUD_IMAGE_ARCHIVE"):
        yield Path(named).resolve()
        return
    with built(need_tool) as archive:
        yield archive


@pytest.fixture(scope="module")
def cluster(cluster_assets: Assets, need_tool: Callable[[str], str]) -> Iterator[Cluster]:
    """A cluster of one node with nothing in it, the same one for all tests of a module."""
    root = Path(tempfile.mkdtemp(prefix="sgpud-e2e-", dir="/tmp"))
    cluster = clusters.make(root, cluster_assets, need_tool)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(root)


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
