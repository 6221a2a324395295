"""A real API server takes what deploy/ and examples/ hold, and warns of nothing in it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.cluster import ROOT, Cluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

DEPLOY = ROOT / "deploy"
OVERLAYS = sorted(path.name for path in (DEPLOY / "overlays").iterdir())
EXAMPLES = sorted(path.name for path in (ROOT / "examples").iterdir())


@pytest.fixture(scope="module", autouse=True)
def namespace(cluster: Cluster) -> None:
    """The namespace: what is only tried is not there for the next object to be in."""
    cluster.kubectl("apply", "-f", str(DEPLOY / "base" / "namespace.yaml"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_it_takes_an_overlay(cluster: Cluster, overlay: str) -> None:
    dry_run(cluster, "-k", str(DEPLOY / "overlays" / overlay))


@pytest.mark.parametrize("example", EXAMPLES)
def test_it_takes_an_example(cluster: Cluster, example: str) -> None:
    dry_run(cluster, "-f", str(ROOT / "examples" / example))


@pytest.mark.parametrize("flavour", [name for name in OVERLAYS if not name.startswith("dra")])
def test_it_takes_the_chart(
    cluster: Cluster, need_tool: Callable[[str], str], tmp_path: Path, flavour: str
) -> None:
    words = [
        "template",
        "sgpud",
        str(DEPLOY / "helm" / "sgpud"),
        "--namespace=sgpud",
        "--set=image.repository=sgpud",
    ]
    words += ["--set", f"flavour={flavour}", "--set", "dashboard.enabled=true"]
    made = subprocess.run(
        [need_tool("helm"), *words], capture_output=True, text=True, timeout=60, check=True
    )
    (tmp_path / "chart.yaml").write_text(made.stdout)
    dry_run(cluster, "-f", str(tmp_path / "chart.yaml"))


def dry_run(cluster: Cluster, *words: str) -> None:
    """Have the server check objects and keep none; it warns of nothing either."""
    done = cluster.control.call("apply", "--dry-run=server", *words)
    assert done.returncode == 0, done.stderr
    assert "server dry run" in done.stdout
    assert not done.stderr
