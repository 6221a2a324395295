"""What a release consists of: the same commit gives the same bytes, and they can be used."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.release import TOP, VERSION, bill, chart, commit_time, sums, tracked, wheel_and_sdist

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]
EPOCH = 1_700_000_000


def built(folder: Path, epoch: int = EPOCH) -> list[Path]:
    """The parts that need no tool but the virtual environment's."""
    tree, to = folder / "tree", folder / "dist"
    to.mkdir(parents=True)
    tracked(TOP, tree)
    return [*wheel_and_sdist(tree, to, epoch), chart(tree, to, epoch)]


@pytest.fixture(scope="module")
def parts(need_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    need_tool("git")
    return built(tmp_path_factory.mktemp("release"))


def test_two_builds_are_the_same_whatever_the_checkout_is_like(
    parts: list[Path], tmp_path: Path
) -> None:
    before = os.umask(0o077)
    try:
        again = built(tmp_path / "elsewhere")
    finally:
        os.umask(before)
    for one, other in zip(parts, again, strict=True):
        assert one.name == other.name
        assert one.read_bytes() == other.read_bytes(), one.name


def test_the_wheel_has_the_daemon_and_the_commands(parts: list[Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(parts[0]) as wheel:
        wheel.extractall(tmp_path)  # noqa: S202 - it was made here
    assert (tmp_path / "sgpud/serve/http/page.html").is_file()
    config = tmp_path / "sgpud.toml"
    config.write_text('[sharing]\nshare_memory = "1GiB"\n')
    for words in (["--version"], ["check-config", str(config)], ["run", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "sgpud", *words],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        assert done.stdout
    with zipfile.ZipFile(parts[0]) as wheel:
        entry = wheel.read(f"sgpud-{VERSION}.dist-info/entry_points.txt").decode()
    assert "sgpud = sgpud.__main__:run" in entry


def test_the_sdist_builds_the_same_wheel(parts: list[Path], tmp_path: Path) -> None:
    with tarfile.open(parts[1]) as sdist:
        sdist.extractall(tmp_path, filter="data")
    to = tmp_path / "dist"
    to.mkdir()
    wheel, _ = wheel_and_sdist(tmp_path / f"sgpud-{VERSION}", to, EPOCH)
    assert wheel.read_bytes() == parts[0].read_bytes()


def test_helm_takes_the_chart(parts: list[Path], need_tool: Callable[[str], str]) -> None:
    shown = subprocess.run(
        [need_tool("helm"), "show", "chart", str(parts[2])],
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    assert f"version: {VERSION}" in shown.stdout


def test_sums_are_those_of_sha256sum(
    parts: list[Path], tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    for part in parts:
        shutil.copy(part, tmp_path)
    sums([tmp_path / part.name for part in parts], tmp_path)
    subprocess.run(
        [need_tool("sha256sum"), "--check", "--strict", "SHA256SUMS"],
        cwd=tmp_path, timeout=300, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def test_a_bill_names_the_file_and_what_is_pinned(parts: list[Path]) -> None:
    found = json.loads(bill(parts[0], TOP / "requirements/run.txt", commit_time()).read_text())
    whole, *held = found["packages"]
    assert whole["name"] == parts[0].name
    assert whole["versionInfo"] == f"sha256:{hashlib.sha256(parts[0].read_bytes()).hexdigest()}"
    assert whole["primaryPackagePurpose"] == "INSTALL"
    assert {"attrs", "twisted", "grpcio"} <= {one["name"].lower() for one in held}
