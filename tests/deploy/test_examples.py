"""The examples: valid for the API, and their programs do tell the framework its limit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.rendering import ROOT
from tests.deploy.schemas import validate

EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
RESOURCE = "deepomatic.com/shared-gpu"
GIB = 1 << 30
TOLD = {"SGPUD_MEMORY_BYTES": str(8 * GIB), "SGPUD_GPU_MEMORY_BYTES": str(24 * GIB)}
FRAMEWORKS = {
    "pytorch": (
        "torch/__init__.py",
        (
            "class cuda:\n"
            "    def get_device_properties(n): return cuda\n"
            f"    total_memory = {24 * GIB}\n"
            "    def set_per_process_memory_fraction(part, n): print(round(part, 3), n)\n"
            "def ones(n, device): return device\n"
        ),
        "0.333 0\ncuda\n",
    ),
    "tensorflow": (
        "tensorflow/__init__.py",
        (
            "class config:\n"
            "    def list_physical_devices(kind): return [kind]\n"
            "    class LogicalDeviceConfiguration:\n"
            "        def __init__(self, memory_limit): self.limit = memory_limit\n"
            "    def set_logical_device_configuration(gpu, all): print(gpu, all[0].limit)\n"
            "def ones(shape): return 'ones'\n"
        ),
        "GPU 8192\nones\n",
    ),
    "jax": (
        "jax/__init__.py",
        (
            "import os\n"
            "print(os.environ['XLA_PYTHON_CLIENT_MEM_FRACTION'])\n"
            "class numpy:\n    def ones(n): return 'ones'\n"
        ),
        "0.333\nones\n",
    ),
}
"""What stands for a framework: its module, that module's text, what the example then prints."""


def documents(file: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(file.read_text()) if each]


def pod_of(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    if manifest["kind"] == "Pod":
        spec: Mapping[str, Any] = manifest["spec"]
        return spec
    return pod_of({"kind": "Pod", **manifest["spec"]["template"]})


def container(name: str) -> Mapping[str, Any]:
    (manifest,) = documents(ROOT / "examples" / f"{name}.yaml")
    found: Mapping[str, Any] = pod_of(manifest)["containers"][0]
    return found


def words(name: str) -> Iterator[str]:
    yield from container(name)["command"]
    yield from container(name)["args"]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_api_accepts_it_and_it_requests_shares(file: Path) -> None:
    for manifest in documents(file):
        validate(manifest)
        pod = pod_of(manifest)
        for each in pod["containers"]:
            assert each["resources"]["limits"][RESOURCE] >= 1
            assert each["image"].rpartition(":")[2] not in ("", "latest")
        keys = {each["key"] for each in pod["tolerations"]}
        assert keys == {RESOURCE, "nvidia.com/gpu"}


def test_there_is_one_for_every_way_to_use_shares() -> None:
    assert {file.stem for file in EXAMPLES} == {
        *("one-share", "two-containers", "memory-shares", "ten-servers"),
        *("pytorch", "tensorflow", "jax", "vllm"),
    }
    (ten,) = documents(ROOT / "examples" / "ten-servers.yaml")
    assert ten["spec"]["replicas"] == 10


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_framework_gets_its_limit(name: str, tmp_path: Path) -> None:
    module, text, expected = FRAMEWORKS[name]
    (tmp_path / module).parent.mkdir()
    (tmp_path / module).write_text(text)
    python, *rest = words(name)
    assert python == "python3"
    done = subprocess.run(
        [sys.executable, *rest],
        env={**TOLD, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == expected


@pytest.mark.parametrize(
    ("name", "program", "expected"),
    [
        ("vllm", "vllm", ["--gpu-memory-utilization", "0.333"]),
        ("ten-servers", "tritonserver", [f"--cuda-memory-pool-byte-size=0:{2 * GIB}"]),
    ],
)
def test_a_server_gets_its_limit(
    name: str, program: str, expected: list[str], tmp_path: Path
) -> None:
    stand_in = tmp_path / program
    stand_in.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    stand_in.chmod(0o755)
    shell, *rest = words(name)
    done = subprocess.run(
        [shutil.which(shell) or shell, *rest],
        env={**TOLD, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)[-len(expected) :] == expected


@pytest.mark.parametrize("file", sorted((ROOT / "examples" / "dra").glob("*.yaml")), ids=str)
def test_the_examples_with_claims_ask_for_a_class_that_is_shipped(file: Path) -> None:
    (shipped,) = documents(ROOT / "deploy" / "components" / "dra" / "device-class.yaml")
    template, pod = documents(file)
    (request,) = template["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["deviceClassName"] == shipped["metadata"]["name"]
    (claim,) = pod["spec"]["resourceClaims"]
    assert claim["resourceClaimTemplateName"] == template["metadata"]["name"]
    assert pod["spec"]["containers"][0]["resources"]["claims"] == [{"name": claim["name"]}]
