"""Runs sandbox.py in a unit's place, with its restrictions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.boot.machine import Machine
from tests.boot.node import drop_in, fake_driver, install, shown

HERE = Path(__file__).parent
INSTEAD = """\
[Service]
Type=oneshot
ExecStart=
ExecStart=/usr/bin/python3 -I /io/sandbox.py {group} {other}
Restart=no
WatchdogSec=0
"""
FOREIGN = """\
int main(void)
{
    int result = 20; /* getpid of 32 bits */
    __asm__ volatile("int $0x80" : "+a"(result) : : "memory");
    return result > 0 ? 0 : 1;
}
"""

FORBIDDEN_TO_ALL = {
    "write /usr": "EROFS",
    "write /etc": "EROFS",
    "write /var/lib": "EROFS",
    "write /run": "EROFS",
    "list /home": "EACCES",
    "list /root": "EACCES",
    "see another's /tmp": "ENOENT",
    "open another node": "EPERM",
    "AF_INET": "EAFNOSUPPORT",
    "AF_INET6": "EAFNOSUPPORT",
    "AF_NETLINK": "EAFNOSUPPORT",
    "AF_PACKET": "EAFNOSUPPORT",
    "writable code": "EPERM EACCES",
    "setuid file": "EPERM",
    "real time": "EPERM",
    "nice": "EPERM",
    "mount": "EPERM",
    "unshare": "EPERM",
    "sethostname": "EPERM",
    "clock": "EPERM",
    "syslog": "EPERM",
    "reboot": "EPERM",
    "swapoff": "EPERM",
    "chroot": "EPERM",
    "personality": "EPERM",
    "ptrace": "EPERM",
    "bpf": "EPERM",
    "perf_event_open": "EPERM",
    "init_module": "EPERM",
    "kernel tunable": "EROFS",
    "kernel modules": "EACCES",
    "mknod": "EPERM",
}
"""What no unit of sgpud may do, and how that fails. Writable code: by a filter, or with a newer
systemd by the kernel itself (PR_SET_MDWE)."""


def as_shipped(root: Path, package: Path, library: Path, unit: str = "sgpud") -> dict[str, Any]:
    """What is possible under a unit of the package as it is shipped."""
    with Machine(root) as machine:
        shutil.copy(package, machine.shared / "sgpud.deb")
        fake_driver(machine, library)
        install(machine)
        return found(machine, unit=unit)


def found(machine: Machine, more: str = "", unit: str = "sgpud") -> dict[str, Any]:
    """What sandbox.py finds in the unit's place."""
    shutil.copy(HERE / "sandbox.py", machine.shared)
    source = machine.shared / "foreign.c"
    source.write_text(FOREIGN if os.uname().machine == "x86_64" else "int main(void){return 1;}")
    subprocess.run(
        ["cc", "-static", "-o", machine.shared / "foreign", source], check=True, timeout=60
    )
    machine.run(
        "echo x >/tmp/of-another; mkdir -p /usr/lib/modules; "
        "mknod /dev/gpu c 195 77; mknod /dev/other c 10 229"
    )
    group = machine.says("getent group sgpud | cut -d: -f3")
    machine.run("systemd-run --unit=other -p User=nobody tail -f /dev/null")
    other = shown(machine, "MainPID", "other.service")
    drop_in(machine, "sandbox", INSTEAD.format(group=group, other=other) + more, unit)
    machine.run(f"systemctl stop {unit}; systemctl start {unit}")
    result: dict[str, Any] = json.loads(machine.path("/var/lib/sgpud/found.json").read_text())
    return result
