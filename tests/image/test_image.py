"""What the image holds."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from sgpud import __version__
from tests.deploy.rendering import ROOT
from tests.image.machine import Image, build_again

BASE = "localhost/debian:bookworm-slim"
MOST = 120 * 10**6
"""Bytes that it may have more than its base."""
IMPORTS = "import sys; sys.path.insert(0, '/usr/share/sgpud'); import sgpud.service, sgpud.app"


def test_it_is_small_and_says_what_it_is(image: Image) -> None:
    more = int(image.inspect("{{.Size}}")) - int(image.inspect("{{.Size}}", BASE))
    print(f"{more / 10**6:.0f} MB more than its base")  # noqa: T201 - a figure to report
    assert more < MOST
    assert image.inspect("{{json .Config.Entrypoint}}") == '["/usr/bin/sgpud"]'
    labels = json.loads(image.inspect("{{json .Config.Labels}}"))
    assert labels["org.opencontainers.image.version"] == __version__
    assert re.fullmatch("[0-9a-f]{40}|unknown", labels["org.opencontainers.image.revision"])
    assert image.run("sgpud", "--version") == f"sgpud {__version__}"


@pytest.mark.parametrize("tool", ["gcc", "cc", "make", "pip", "pip3", "dpkg-buildpackage"])
def test_no_build_tool_is_in_it(image: Image, tool: str) -> None:
    assert image.run("sh", "-c", f"command -v {tool} || echo none") == "none"


def test_every_module_has_byte_code_that_is_used(image: Image) -> None:
    done = image.call(
        "podman", "run", "--rm", "--network=none", "--read-only", "--cap-drop=all",
        "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024",
        "--entrypoint=python3", image.name, "-I", "-v", "-c", IMPORTS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sources = re.findall(r"# code object from '?([^'\n]+)'?", done.stderr)
    assert len(sources) > 300
    assert [source for source in sources if not source.endswith(".pyc")] == []


def test_the_document_beside_it_names_what_it_holds(image: Image) -> None:
    document = json.loads((ROOT / "dist" / f"sgpud-{__version__}.spdx.json").read_text())
    assert document["spdxVersion"] == "SPDX-2.3"
    held = {each["name"]: each["versionInfo"] for each in document["packages"]}
    installed = image.run("dpkg-query", "-W", "-f=${Package}\t${Version}\n").splitlines()
    for line in installed:
        name, version = line.split("\t")
        assert held.pop(name) == version
    assert held.keys() == {image.name, "nvidia-ml-py"}
    assert held[image.name].startswith("sha256:")
    identities = [each["SPDXID"] for each in document["packages"]]
    assert len(set(identities)) == len(identities)
    related = {each["relatedSpdxElement"] for each in document["relationships"]}
    assert related == set(identities)


@pytest.mark.timeout(330)
def test_the_same_tree_gives_the_same_layers(image: Image) -> None:
    assert build_again(image, BASE) == image.inspect("{{.RootFS.Layers}}")


@pytest.mark.timeout(330)
def test_the_same_tree_gives_the_same_package(tmp_path: Path) -> None:
    subprocess.run([ROOT / "tools/deb", tmp_path], capture_output=True, timeout=300, check=True)
    name = f"sgpud_{__version__}_all.deb"
    assert (tmp_path / name).read_bytes() == (ROOT / "dist" / name).read_bytes()
