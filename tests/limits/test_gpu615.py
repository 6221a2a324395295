"""On a real GPU with driver 615 or later: a limit is set, read back and cleared, without CUDA."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sgpud.limits.helper.cgroups import LimitRefusedError
from sgpud.limits.helper.limiter import Limiter
from sgpud.limits.helper.nvml import Nvml
from sgpud.limits.helper.record import Record
from sgpud.limits.helper.worker import Worker
from tests.gpus.nvml.stub import GPU_A

pytestmark = [pytest.mark.gpu, pytest.mark.gpu615, pytest.mark.slow]
ROOT = Path("/sys/fs/cgroup")
SIZE = 2**30


@pytest.fixture
def gpu() -> str:
    """The UUID of a GPU whose driver can limit memory; skipped where there is none."""
    if os.geteuid() != 0 or not (ROOT / "cgroup.controllers").exists():
        pytest.skip("needs root and cgroup v2")
    found = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = (line for file in found for line in file.read_text().splitlines())
    uuids = [line.split()[-1] for line in lines if line.startswith("GPU UUID")]
    try:
        Nvml()
    except LimitRefusedError as refusal:
        pytest.skip(refusal.detail)
    return uuids[0] if uuids else GPU_A


@pytest.fixture
def pod() -> Iterator[tuple[str, Path]]:
    """The cgroup of a pod that has no process, and its UID."""
    uid = str(uuid.uuid4())
    folder = ROOT / "sgpud-test-kubepods" / f"pod{uid}"
    folder.mkdir(parents=True)
    try:
        yield uid, folder
    finally:
        folder.rmdir()
        folder.parent.rmdir()


def test_a_limit_is_set_read_back_and_cleared(gpu: str, pod: tuple[str, Path]) -> None:
    uid, folder = pod
    target = {"pod": uid, "cgroup": str(folder), "gpu": gpu}
    with tempfile.TemporaryDirectory() as state:
        limiter = Limiter(str(ROOT), Record(state), Worker())
        probed = limiter.answer({"op": "probe", "gpus": [gpu]})["gpus"][gpu]
        assert probed["backend"] in {"dmem", "misc"}, probed
        assert limiter.answer({"op": "set", "bytes": SIZE, **target}) == {"ok": True, "limit": SIZE}
        (cap,) = limiter.answer({"op": "get"})["caps"]
        assert (cap["limit"], cap["used"]) == (SIZE, 0)
        assert limiter.answer({"op": "clear", **target}) == {"ok": True}
        assert limiter.answer({"op": "get"})["caps"] == []
