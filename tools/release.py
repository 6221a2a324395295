#!/usr/bin/env python3
"""Builds a release in dist/: `python -m tools.release [--images "amd64 arm64"]`, as `make release`.

The Debian package, the wheel and the sdist, the chart, for each architecture the image as an
archive of an OCI layout, an SPDX document for each, and SHA256SUMS. The same commit gives the same
bytes: what a tool packs with its own clock, or with the modes of a checkout, is packed again here.
The image does so as long as the packages of Debian in it are the same.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

import sgpud
from tools.spdx import carried_packages, document

TOP = Path(__file__).parents[1]
VERSION = sgpud.__version__
IMAGE = f"registry.example.com/sgpud:{VERSION}"
"""The name in the layout; whoever pushes it chooses another."""
SUMS = "SHA256SUMS"


def commit_time(top: Path = TOP) -> int:
    """When the commit was made, in seconds since the epoch: the time of everything in a release."""
    return int(_output("git", "-C", str(top), "log", "-1", "--format=%ct"))


def tracked(top: Path, to: Path) -> Path:
    """A copy of the files that git tracks, with the modes that git knows."""
    for name in _output("git", "-C", str(top), "ls-files", "-z").split("\0"):
        source = top / name
        if name and source.is_file():
            copy = to / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            copy.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
    return to


def wheel_and_sdist(tree: Path, to: Path, epoch: int) -> list[Path]:
    """What `pip install` takes, from a copy of the tree."""
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        program = (
            "import logging, sys; from setuptools import build_meta as backend;"
            "logging.disable(logging.WARNING); to = sys.argv[1];"
            "backend.build_wheel(to); backend.build_sdist(to)"
        )
        subprocess.run(
            [sys.executable, "-c", program, str(made)],
            cwd=tree,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        (wheel,), (sdist,) = made.glob("*.whl"), made.glob("*.tar.gz")
        packed_wheel, packed_sdist = to / wheel.name, to / sdist.name
        _repack_wheel(wheel, packed_wheel, epoch)
        with tarfile.open(sdist) as archive:
            archive.extractall(made / "sdist", filter="data")
        _pack(made / "sdist", packed_sdist, epoch, compressed=True)
    return [packed_wheel, packed_sdist]


def chart(tree: Path, to: Path, epoch: int) -> Path:
    """The chart as `helm install` takes it."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(tree / "deploy/helm", name, dirs_exist_ok=True)
        packed = to / f"sgpud-chart-{VERSION}.tgz"
        _pack(Path(name), packed, epoch, compressed=True)
    return packed


def package(to: Path) -> Path:
    """The Debian package."""
    subprocess.run([str(TOP / "tools/deb"), str(to)], stdout=subprocess.DEVNULL, check=True)
    return to / f"sgpud_{VERSION}_all.deb"


def image(architecture: str, to: Path, epoch: int) -> list[Path]:
    """The image for one architecture, of the package in dist/, and its SPDX document."""
    name = f"sgpud-{VERSION}-{architecture}"
    with tempfile.TemporaryDirectory(prefix="sgpud-image-", dir="/var/tmp") as folder:
        root = f"{folder}/storage"
        environment = {**os.environ, "ROOT": root, "ARCH": architecture}
        environment["SOURCE_DATE_EPOCH"] = str(epoch)
        subprocess.run([str(TOP / "tools/image"), IMAGE], env=environment, check=True)
        layout = f"oci:{folder}/layout:{VERSION}"
        buildah = ("buildah", "--root", root, "--runroot", f"{root}-run")
        subprocess.run([*buildah, "push", "--quiet", IMAGE, layout], check=True)
        archive = to / f"{name}.oci.tar"
        _pack(Path(folder) / "layout", archive, epoch, compressed=False)
        subprocess.run([*buildah, "rmi", "--all", "--force"], stdout=subprocess.DEVNULL, check=True)
    return [archive, TOP / "dist" / f"{name}.spdx.json"]


def bill(made: Path, pins: Path, epoch: int) -> Path:
    """The SPDX document of a file that is no image: itself, and the Python packages of `pins`."""
    digest = f"sha256:{sha256(made.read_bytes()).hexdigest()}"
    revision = _output("git", "-C", str(TOP), "rev-parse", "HEAD").strip()
    parts = list(carried_packages(pins.read_text()))
    text = document(made.name, digest, revision, epoch, parts, purpose="INSTALL")
    written = made.with_name(f"{made.name}.spdx.json")
    written.write_text(json.dumps(text, indent=1) + "\n")
    return written


def sums(files: Iterable[Path], to: Path) -> Path:
    """SHA256SUMS, as `sha256sum --check` reads it."""
    lines = [
        f"{sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(files, key=lambda file: file.name)
    ]
    written = to / SUMS
    written.write_text("".join(lines))
    return written


def _pack(folder: Path, to: Path, epoch: int, *, compressed: bool) -> None:
    """A tar archive that depends on the names, the contents and who may execute what, alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            about = tarfile.TarInfo(str(path.relative_to(folder)))
            about.mtime = epoch
            if path.is_dir():
                about.type, about.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(about)
                continue
            about.size = path.stat().st_size
            about.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as opened:
                archive.addfile(about, opened)
    content = buffer.getvalue()
    to.write_bytes(gzip.compress(content, 9, mtime=epoch) if compressed else content)


def _repack_wheel(wheel: Path, to: Path, epoch: int) -> None:
    """The same wheel in order, with one time and plain modes."""
    when = datetime.fromtimestamp(epoch, timezone.utc).timetuple()[:6]
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(to, "w") as new:
        for name in sorted(old.namelist()):
            about = zipfile.ZipInfo(name, when)
            about.compress_type = zipfile.ZIP_DEFLATED
            about.external_attr = 0o100644 << 16
            new.writestr(about, old.read(name), compresslevel=9)


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(words: Sequence[str] | None = None) -> int:
    """Build everything; the names of what was built, on standard output."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument(
        "--images",
        default="amd64",
        help='architectures of the image, e.g. "amd64 arm64"; empty: no image',
    )
    asked = parser.parse_args(words)
    if _output("git", "-C", str(TOP), "status", "--porcelain"):
        parser.exit(1, "make release: commit first: a release is made of a commit\n")
    dist, epoch = TOP / "dist", commit_time()
    dist.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        tree = tracked(TOP, Path(name))
        wheel, sdist = wheel_and_sdist(tree, dist, epoch)
        packed = chart(tree, dist, epoch)
    deb = package(dist)
    found = [deb, wheel, sdist, packed]
    found.append(bill(deb, TOP / "requirements/package.txt", epoch))
    found.append(bill(wheel, TOP / "requirements/run.txt", epoch))
    for architecture in asked.images.split():
        found += image(architecture, dist, epoch)
    for file in (*found, sums(found, dist)):
        sys.stdout.write(f"{file.relative_to(TOP)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
