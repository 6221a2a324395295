"""Manifests as kubectl and helm render them, each once. Debian 12 has neither, nor the schemas."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

if os.environ.get("SGPUD_STACK") == "debian-12":
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.deploy.rendering import Renderer


@pytest.fixture(scope="session")
def renderer(need_tool: Callable[[str], str]) -> Iterator[Renderer]:
    with TemporaryDirectory() as folder:
        yield Renderer(need_tool, Path(folder))
