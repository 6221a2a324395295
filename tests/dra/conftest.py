"""A node with a DRA driver: sgpud as a process, beside a stand-in kubelet and API server."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from sgpud.testing.api_server import ApiServer
from sgpud.testing.dra_kubelet import DraKubelet
from tests.dra.node import DraNode


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show what the daemons said with a failure."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    node = getattr(item, "funcargs", {}).get("node")
    if report.failed and isinstance(node, DraNode):
        report.sections.append(("the daemons", node.logs()))


@pytest.fixture
def node() -> Iterator[DraNode]:
    """A node whose kubelet and API server run, without a daemon yet."""
    with tempfile.TemporaryDirectory(prefix="sgpud-", dir="/tmp") as folder:
        api = ApiServer()
        api.start()
        kubelet = DraKubelet(Path(folder) / "kubelet", api.delete_all)
        kubelet.start()
        made = DraNode(Path(folder), api, kubelet)
        try:
            yield made
        finally:
            made.close()
            kubelet.stop()
            api.stop()
