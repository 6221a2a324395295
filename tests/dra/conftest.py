"""A node with a DRA driver: sgpud as a process, beside a stand-in kubelet and API server."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.dra.node import DraNode, dra_node


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
    with dra_node() as made:
        yield made
