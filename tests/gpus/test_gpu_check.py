"""`make gpu-check`, on the stub in place of a card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpus.nvml.stub import A100, T4, Stub

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def check(stub: Stub, report: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "sgpud.testing.gpu_check"),
            *("--without-suite", "--report", str(report)),
        ],
        cwd=ROOT, env=stub.env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def test_a_machine_with_gpus_gets_a_report(stub: Stub, tmp_path: Path) -> None:
    stub.write(A100, T4)
    done = check(stub, tmp_path / "report.md")
    assert done.returncode == 0, done.stdout + done.stderr
    report = (tmp_path / "report.md").read_text()
    assert report.startswith("## 1 x NVIDIA A100-SXM4-40GB, 1 x Tesla T4, driver 580.12\n")
    assert "- Allocate: one container with a share of each GPU\n" in report
    assert report.endswith("\nAll passed.\n")


def test_a_gpu_that_is_not_well_fails_the_check(stub: Stub, tmp_path: Path) -> None:
    # The driver asks for a reset of this GPU: its shares are never allocatable.
    stub.write(A100, T4 + "  recovery 1\n")
    done = check(stub, tmp_path / "report.md")
    assert done.returncode == 1, done.stdout + done.stderr
    report = (tmp_path / "report.md").read_text()
    assert "**Not all passed.**" in report
    assert "- log: " in report
    assert "healthy -> unhealthy" in report


def test_a_machine_without_a_gpu_is_said_and_nothing_is_written(stub: Stub, tmp_path: Path) -> None:
    stub.write()
    done = check(stub, tmp_path / "report.md")
    assert done.returncode == 2
    assert "no GPU that can be shared on this machine" in done.stdout
    assert not (tmp_path / "report.md").exists()
