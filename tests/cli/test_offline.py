"""What is said of a node without a daemon, by processes of their own: each runs a reactor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.testing.kubelet.checkpoint import NAME, PodDevices, Slot, encode
from tests.core.values import POOL
from tests.surroundings import short_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FAKE_GPUS = ROOT / "tests" / "gpus" / "fake.toml"


@pytest.fixture
def node() -> Iterator[Path]:
    """A folder with a plugin directory and a configuration."""
    with short_folder() as folder:
        (folder / "plugins").mkdir()
        (folder / "sgpud.toml").write_text("[sharing]\nduplication_factor = 8\n")
        yield folder


def run(
    node: Path, command: str, *more: str, fake_gpus: bool = True, library: Path | None = None
) -> Any:
    """A command on this node, without a daemon; without a driver if there is no `library`."""
    arguments = [
        command,
        *("--config", str(node / "sgpud.toml")),
        *("--plugin-dir", str(node / "plugins")),
        *("--run-dir", str(node / "run")),
        *(("--fake-gpus", str(FAKE_GPUS)) if fake_gpus else ()),
        *more,
    ]
    # A library that is none: whatever driver the machine has, the node of this test has none.
    none = node / "lib"
    none.mkdir(exist_ok=True)
    (none / "libnvidia-ml.so.1").write_bytes(b"no library")
    stub = {"LD_LIBRARY_PATH": str(library or none), "STUB_NVML": str(node / "script")}
    return subprocess.run(
        [sys.executable, "-m", "sgpud", *arguments],
        cwd=ROOT,
        env={**os.environ, **stub},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def document(node: Path, command: str, *more: str) -> Any:
    done = run(node, command, "--json", *more)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


# gpus. -------------------------------------------------------------------------------------------


def test_each_gpu_is_listed_with_how_it_is_shared(node: Path) -> None:
    with (node / "sgpud.toml").open("a") as file:
        file.write('[gpus]\ndeny = ["Tesla T4"]\n')
        file.write('[[gpu]]\nmatch = "*MIG*"\nresource = "example.com/slice"\n')
    found = document(node, "gpus")
    assert (found["fault"], found["errors"], found["configuration"]) == ("", {}, "")
    shared = [gpu["shared"] for gpu in found["gpus"]]
    assert shared == [
        {"resource": POOL, "shares": 8},
        {"resource": POOL, "shares": 8},
        None,
        *[{"resource": "example.com/slice", "shares": 8}] * 3,
    ]
    assert found["gpus"][2]["product"] == "Tesla T4"
    assert found["gpus"][3]["mig"]["parent"].startswith("GPU-")


def test_the_text_is_a_line_for_each_gpu(node: Path) -> None:
    done = run(node, "gpus")
    assert done.returncode == 0
    found = document(node, "gpus")
    for gpu in found["gpus"]:
        (line,) = (line for line in done.stdout.splitlines() if gpu["uuid"] in line)
        assert gpu["product"] in line


def test_an_invalid_file_does_not_hide_the_gpus(node: Path) -> None:
    (node / "sgpud.toml").write_text("nonsense")
    found = document(node, "gpus")
    assert len(found["gpus"]) == 6
    assert f"{node / 'sgpud.toml'}:1: " in found["configuration"]
    assert found["gpus"][0]["shared"]["shares"] == 100


def test_without_a_driver_the_output_says_what_to_do(node: Path) -> None:
    done = run(node, "gpus", "--json", fake_gpus=False)
    found = json.loads(done.stdout)
    assert (done.returncode, found["gpus"]) == (1, [])
    assert "libnvidia-ml" in found["fault"]
    text = run(node, "gpus", fake_gpus=False)
    assert (text.returncode, text.stderr) == (1, "")
    assert text.stdout.startswith("Cannot read GPUs: ")


MACHINE = """\
gpu 1833c8b5-9aa0-5382-b784-68b7e77eb186
  name Orin (nvgpu)
  minor 0
  memory 32000000000 0
gpu GPU-2F0C7C1E-8A60-4F3B-9D55-0D6F0A1B2C3D
  name NVIDIA A100
  pci 00000000:3B:00.0
  mig 1
gpu a,b
  name NVIDIA ODD
  pci 00000000:5B:00.0
  memory 32000000000 0
"""


def test_gpus_that_cannot_be_shared_are_listed_with_their_address_and_reason(
    node: Path, built: Callable[..., Path]
) -> None:
    (node / "script").write_text(MACHINE)
    library = built()
    done = run(node, "gpus", "--root", str(node), fake_gpus=False, library=library)
    lines = done.stdout.splitlines()
    assert lines[1].split()[1] == "1833c8b5-9aa0-5382-b784-68b7e77eb186"
    empty = "GPU 1 (GPU-2F0C7C1E-8A60-4F3B-9D55-0D6F0A1B2C3D, 0000:3b:00.0)"
    assert lines[-2:] == [
        f"{empty} cannot be shared: MIG mode without instances: nothing to share",
        "GPU 2 (0000:5b:00.0) cannot be shared: its UUID 'a,b' cannot be part of a share id",
    ]
    allowed = 'gpus.allow=["1833C8B5-9AA0-5382-B784-68B7E77EB186", "2"]'
    done = run(node, "plan", "--set", allowed, fake_gpus=False, library=library)
    assert 'gpus.allow: "2" is GPU 2 (0000:5b:00.0), which cannot be shared' in done.stdout


# plan. -------------------------------------------------------------------------------------------


def test_the_plan_is_what_a_daemon_would_advertise(node: Path) -> None:
    found = document(node, "plan", "--set", "sharing.placement=packed")
    seen = found["view"]
    assert found["reload"] is None
    assert seen["serving"] == "not running"
    assert seen["directory"] == str(node / "plugins")
    assert seen["configuration"]["in_use"] == "file"
    (pool,) = seen["pools"]
    assert pool["resource"] == POOL
    assert [gpu["shares"] for gpu in pool["gpus"]] == [8] * 6


def test_held_shares_are_in_the_plan(node: Path) -> None:
    uuid = document(node, "gpus")["gpus"][0]["uuid"]
    held = (f"{uuid}::0", f"{uuid}::50")
    answer = api.ContainerAllocateResponse()
    checkpoint = {Slot("uid", "main", POOL): PodDevices({-1: held}, answer)}
    (node / "plugins" / NAME).write_bytes(encode(checkpoint, {POOL: held}))
    (pool,) = document(node, "plan")["view"]["pools"]
    first = pool["gpus"][0]
    assert (first["uuid"], first["held"], first["shares"], first["free"]) == (uuid, 2, 8, 6)


def test_an_unreadable_checkpoint_is_noted_in_the_plan(node: Path) -> None:
    (node / "plugins" / NAME).write_bytes(b"{")
    seen = document(node, "plan")["view"]
    assert "not JSON" in seen["holders"]
    assert seen["pools"]


def test_an_invalid_file_gives_no_plan(node: Path) -> None:
    (node / "sgpud.toml").write_text("nonsense")
    done = run(node, "plan")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith(f"sgpud: {node / 'sgpud.toml'}:1: ")


def test_without_a_driver_the_plan_says_what_is_missing(node: Path) -> None:
    done = run(node, "plan", "--json", fake_gpus=False)
    seen = json.loads(done.stdout)["view"]
    assert "libnvidia-ml" in seen["probe"]
    assert seen["pools"] == []
    assert "GPUs" in seen["unknown"]


def test_nothing_is_written_to_the_node(node: Path) -> None:
    run(node, "plan")
    run(node, "gpus")
    assert sorted(each.name for each in node.iterdir()) == ["lib", "plugins", "sgpud.toml"]
    assert list((node / "plugins").iterdir()) == []
