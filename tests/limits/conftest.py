"""A helper on the stub NVML and a tree of cgroups in a folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gpus.nvml.stub import Stub
from tests.limits.helping import Helper
from tests.limits.tree import CgroupTree


@pytest.fixture
def place(built: Callable[..., Path]) -> Iterator[Helper]:
    """All that a helper needs; its paths are short enough for a socket's."""
    base = Path(tempfile.mkdtemp(prefix="sgpud-limits-"))
    for name in ("cgroup", "run", "state"):
        (base / name).mkdir()
    stub = Stub(base / "script", built(), base)
    made = Helper(stub, CgroupTree(base / "cgroup"), base / "run", base / "state")
    made.tree.make(".")
    made.limits("misc")
    yield made
    shutil.rmtree(base)


@pytest.fixture
def helper(place: Helper) -> Iterator[Helper]:
    """A helper that runs."""
    with place.running():
        yield place
