"""Booted machines with the package of dist/ on them. `make test-boot` runs these tests, as root.

SGPUD_BOOT names the suite that is booted: bookworm, trixie, noble.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.boot.machine import Machine
from tests.boot.node import Host, fake_driver, install

TOP = Path(__file__).parents[2]
if "SGPUD_BOOT" not in os.environ:
    collect_ignore_glob = ["test_*"]


@pytest.fixture(scope="session")
def root() -> Path:
    """A minimal Debian with systemd and what the package depends on; made once, kept."""
    done = subprocess.run(
        [TOP / "tools" / "boot-root", os.environ["SGPUD_BOOT"]],
        stdout=subprocess.PIPE, text=True, check=True, timeout=590,
    )  # fmt: skip
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def package() -> Path:
    """The package that `make deb` left in dist/."""
    (found,) = (TOP / "dist").glob("sgpud_*_all.deb")
    return found


@pytest.fixture(scope="session")
def library(built: Callable[..., Path]) -> Path:
    """A libnvidia-ml.so.1 that tells what a script says."""
    return built() / "libnvidia-ml.so.1"


@pytest.fixture
def bare(root: Path, package: Path) -> Iterator[Machine]:
    """A machine without GPU, kubelet and package; the package lies in /io."""
    with Machine(root) as machine:
        shutil.copy(package, machine.shared / "sgpud.deb")
        # The root was made without documentation; a package gets its own all the same.
        machine.run("rm -f /etc/dpkg/dpkg.cfg.d/*")
        yield machine


@pytest.fixture
def machine(bare: Machine, library: Path) -> Machine:
    """The same with NVIDIA's driver (fake) and the package installed, which runs it."""
    fake_driver(bare, library)
    install(bare)
    return bare


@pytest.fixture
def host(machine: Machine) -> Iterator[Host]:
    """The same with a kubelet that has the shares."""
    with Host(machine) as host:
        host.became(100, 100)
        yield host
