"""Each restriction of the unit holds, and each of its needs is met."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.boot.machine import Machine
from tests.boot.node import shown
from tests.boot.sandboxed import FORBIDDEN_TO_ALL, as_shipped, found

NEEDS = [
    "write /var/lib/sgpud",
    "write /run/sgpud",
    "write /run/cdi",
    "serve in /var/lib/kubelet",
    "lock /var/lib/kubelet",
    "open /dev/null",
    "AF_UNIX",
    "chown to the group",
    "cgroup of another",
    "NVML",
    "child",
    "inotify",
]
FORBIDDEN = {
    **FORBIDDEN_TO_ALL,
    "cgroup tree": "EROFS",
}


@pytest.fixture(scope="module")
def sandbox(root: Path, package: Path, library: Path) -> dict[str, Any]:
    """What is possible under the unit as it is shipped."""
    return as_shipped(root, package, library)


@pytest.mark.parametrize("need", NEEDS)
def test_what_it_needs_it_may(sandbox: dict[str, Any], need: str) -> None:
    assert sandbox[need] == "ok"


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_it_does_not_need_it_may_not(sandbox: dict[str, Any], what: str) -> None:
    assert sandbox[what] in FORBIDDEN[what].split()


def test_a_gpus_node_is_let_through_though_no_driver_was_there(sandbox: dict[str, Any]) -> None:
    assert sandbox["open a GPU's node"] in {"ENXIO", "ENODEV", "ok"}


def test_it_has_no_capability_and_gets_none(sandbox: dict[str, Any]) -> None:
    assert sandbox["status"] == {
        "CapBnd": "0000000000000000",
        "CapEff": "0000000000000000",
        "NoNewPrivs": "1",
        "Umask": "0077",
    }


def test_it_has_a_network_of_its_own(sandbox: dict[str, Any]) -> None:
    assert sandbox["interfaces"] == ["lo"]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="there is no other ABI to try")
def test_calls_by_another_abi_are_not_carried_out(sandbox: dict[str, Any]) -> None:
    assert sandbox["foreign ABI"] != "ok"


def test_without_the_restrictions_the_same_tries_succeed(machine: Machine) -> None:
    """So that what fails above fails because of them, and for no other reason."""
    lifted = [
        *(
            "ProtectSystem=no",
            "ReadOnlyPaths=",
            "ProtectHome=no",
            "PrivateTmp=no",
            "DevicePolicy=auto",
        ),
        *("DeviceAllow=", "PrivateNetwork=no", "RestrictAddressFamilies=", "SystemCallFilter="),
        *("SystemCallArchitectures=", "MemoryDenyWriteExecute=no", "LockPersonality=no"),
        *("ProtectControlGroups=no", "ProtectKernelLogs=no", "ProtectKernelModules=no"),
        *("ProtectKernelTunables=no", "RestrictNamespaces=no", "RestrictRealtime=no"),
        *("RestrictSUIDSGID=no", "NoNewPrivileges=no", "ProtectClock=no", "ProtectHostname=no"),
        "CapabilityBoundingSet=~",
    ]
    free = found(machine, "\n".join(lifted) + "\n")
    names = ["write /usr", "write /etc", "write /var/lib", "list /home", "list /root"]
    names += ["see another's /tmp", "AF_INET", "AF_NETLINK", "writable code", "setuid file"]
    names += ["personality", "unshare", "mount", "chroot", "nice"]
    names += ["cgroup tree", "kernel modules"]
    assert {name: free[name] for name in names} == dict.fromkeys(names, "ok")
    assert free["open another node"] != "EPERM"


def test_its_limits_are_the_units(machine: Machine) -> None:
    assert shown(machine, "MemoryMax") == str(512 * 1024 * 1024)
    assert shown(machine, "CPUWeight") == "400"
    assert shown(machine, "TimeoutStartUSec") == "10s"
    assert shown(machine, "OOMPolicy") == "continue"
    assert shown(machine, "OOMScoreAdjust") == "-900"
    assert "kubelet.service" in shown(machine, "Before")
    assert "nvidia-persistenced.service" not in shown(machine, "After")
