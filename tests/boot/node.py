"""A booted GPU node: the package, a fake driver, a stand-in kubelet."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import sgpud
from sgpud.testing.kubelet.records import Container
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.boot.machine import Machine
from tests.e2e.waiting import until

if TYPE_CHECKING:
    from typing_extensions import Self

RESOURCE = "deepomatic.com/shared-gpu"
PLUGINS = "/var/lib/kubelet/device-plugins"
PODS = "/var/lib/kubelet/pod-resources/kubelet.sock"
CONFIG = "/etc/sgpud.toml"
SCRIPT = "/etc/stub-nvml"
GPU = "GPU-aaaaaaaa-1111-2222-3333-000000000000"
ONE_GPU = f"""\
driver 580.12
nvml 12.580.12
gpu {GPU}
  name NVIDIA A100-SXM4-40GB
  minor 0
  pci 00000000:3B:00.0
  memory 42949672960 671088640
  compute 8 0
"""
STUB = f"[Service]\nEnvironment=STUB_NVML={SCRIPT}\n"
"""A drop-in that names the script to the library that stands in for NVIDIA's."""
SLOWLY = 60.0
"""Seconds that anything may take on a machine that does other work too."""


def fake_driver(machine: Machine, library: Path) -> None:
    """Put a library in the place of NVIDIA's, and the signs of NVIDIA's runtime."""
    shutil.copy(library, machine.path("/usr/lib/libnvidia-ml.so.1"))
    machine.write("/usr/bin/nvidia-container-runtime", "")
    machine.write(SCRIPT, ONE_GPU)
    drop_in(machine, "stub", STUB)


def drop_in(machine: Machine, name: str, text: str, unit: str = "sgpud") -> None:
    """Add a drop-in to the unit."""
    machine.write(f"/etc/systemd/system/{unit}.service.d/{name}.conf", text)
    machine.run("systemctl daemon-reload")


def install(machine: Machine, name: str = "sgpud.deb") -> str:
    """Install as README says; what apt printed."""
    done = machine.run(f"apt-get install -y --allow-downgrades /io/{name}")
    return done.stdout + done.stderr


def earlier(package: Path, work: Path, target: Path) -> None:
    """Make the same package as version 0.0.9."""
    tree = work / "earlier"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True, timeout=60)
    for name, old, new in (
        ("DEBIAN/control", f"Version: {sgpud.__version__}", "Version: 0.0.9"),
        ("usr/share/sgpud/sgpud/__init__.py", sgpud.__version__, "0.0.9"),
    ):
        file = tree / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
    build = ("dpkg-deb", "-b", "-Znone", str(tree), str(target))
    subprocess.run(build, stdout=subprocess.DEVNULL, check=True, timeout=60)
    shutil.rmtree(tree)


def shown(machine: Machine, name: str, unit: str = "sgpud.service") -> str:
    """One property of the unit."""
    return machine.says(f"systemctl show {unit} --value -p {name}")


def journal(machine: Machine) -> list[dict[str, Any]]:
    """Every entry of the unit, as journald keeps it."""
    lines = machine.says("journalctl -u sgpud.service -o json --no-pager").splitlines()
    return [json.loads(line) for line in lines]


def said(machine: Machine, text: str) -> None:
    """Wait until the journal of the unit has this."""

    def found() -> bool:
        return any(text in str(entry.get("MESSAGE")) for entry in journal(machine))

    until(found, f"the journal says {text!r}", SLOWLY)


class Host:
    """A stand-in kubelet on the machine's own /var/lib/kubelet, and what it has of sgpud."""

    def __init__(self, machine: Machine) -> None:
        """The kubelet starts with the context."""
        self.machine = machine
        self.kubelet = StandInKubelet(machine.path(PLUGINS), machine.path(PODS))

    def __enter__(self) -> Self:
        """Start the kubelet."""
        self.kubelet.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it; the test fails if the real one had panicked."""
        self.kubelet.__exit__(kind, error, traceback)

    def became(self, allocatable: int, capacity: int) -> None:
        """Wait until the node shows so many shares."""

        def shows() -> bool:
            kubelet = self.kubelet
            return (kubelet.allocatable(RESOURCE), kubelet.capacity(RESOURCE)) == (
                allocatable,
                capacity,
            )

        until(shows, f"{allocatable} of {capacity} shares are allocatable", SLOWLY)

    def admit(self, pod: str) -> Container:
        """A container with one share."""
        return self.kubelet.admit(f"uid-{pod}", "default", pod, "main", {RESOURCE: 1})

    def status(self, text: str) -> str:
        """Wait until systemd's status line has this in it."""

        def has() -> str:
            line = shown(self.machine, "StatusText")
            return line if text in line else ""

        return until(has, f"the status line says {text!r}", SLOWLY)

    def restarted(self, before: str) -> str:
        """Wait for another main process; its id."""

        def other() -> str:
            pid = shown(self.machine, "MainPID")
            ready = shown(self.machine, "ActiveState") == "active"
            return pid if ready and pid not in {"0", before} else ""

        return until(other, "another process serves", SLOWLY)

    @property
    def pid(self) -> str:
        """The daemon's process id in the container."""
        return shown(self.machine, "MainPID")
