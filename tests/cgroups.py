"""Real processes in real cgroups, where this machine lets a test make some."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import frozen

MOUNTED = Path("/sys/fs/cgroup")
VERSIONS = ("v1", "v2")


@frozen
class Hierarchy:
    """A hierarchy in which a test may make cgroups."""

    root: Path

    @contextmanager
    def cgroup(self, path: str) -> Iterator[Path]:
        """Make a cgroup, and remove it and what was made above it at the end."""
        made = []
        folder = self.root
        for part in Path(path.lstrip("/")).parts:
            folder /= part
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        try:
            yield folder
        finally:
            for each in reversed(made):
                each.rmdir()


def hierarchy(version: str) -> Hierarchy:
    """A hierarchy of this version; the test is skipped where there is none to write to."""
    if os.geteuid() != 0:
        pytest.skip("making a cgroup needs root")
    unified = MOUNTED if (MOUNTED / "cgroup.controllers").exists() else MOUNTED / "unified"
    root = unified if version == "v2" else MOUNTED / "pids"
    if not (root / "cgroup.procs").exists():
        pytest.skip(f"no cgroup {version} is mounted below {MOUNTED}")
    probe = root / f"sgpud-try-{uuid.uuid4().hex[:8]}"
    try:
        probe.mkdir()
    except OSError as problem:
        pytest.skip(f"no cgroup can be made in {root}: {problem.strerror}")
    probe.rmdir()
    return Hierarchy(root)


@contextmanager
def process(cgroup: Path | None, words: Sequence[str] = ("cat",)) -> Iterator[int]:
    """A process that waits, in this cgroup; its id. It is gone, and reaped, at the end."""
    waits = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(f"{waits.pid}\n")
        yield waits.pid
    finally:
        waits.communicate(timeout=20)
