"""The process that calls NVML: when none is started."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from sgpud.limits.helper.cgroups import LimitRefusedError, scratch
from sgpud.limits.helper.worker import Worker


def no_fork() -> int:
    raise OSError(errno.EAGAIN, "no more processes")


def test_a_process_that_cannot_be_started_leaves_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "fork", no_fork)
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(3):
        with pytest.raises(LimitRefusedError, match="no more processes") as caught:
            Worker().call(time.monotonic() + 5, "get")
        assert caught.value.kind == "nvml"
    assert len(list(descriptors.iterdir())) == before


def test_no_process_is_started_when_no_time_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", no_fork)
    with pytest.raises(LimitRefusedError, match="no time is left") as caught:
        Worker().call(time.monotonic(), "get")
    assert caught.value.kind == "hung"


def test_a_scratch_cgroup_that_somebody_uses_stays(tmp_path: Path) -> None:
    with scratch(str(tmp_path)) as (_, inner):
        (Path(inner) / "theirs").mkdir()
    with scratch(str(tmp_path)) as (_, inner):
        assert (Path(inner) / "theirs").is_dir()
