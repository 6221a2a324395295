"""The helper under a real systemd: it serves, and may do no more than it needs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.boot.machine import Machine
from tests.boot.node import GPU, ONE_GPU, SCRIPT, SLOWLY, drop_in, shown
from tests.boot.sandboxed import FORBIDDEN_TO_ALL, as_shipped
from tests.e2e.waiting import until

UNIT = "sgpud-limits"
STUB = f"[Service]\nEnvironment=STUB_NVML={SCRIPT}\nReadWritePaths=/etc\n"
"""The stub keeps the limits beside its script."""
POD = "/sys/fs/cgroup/kubepods/pod0123456789abcdef0123456789abcdef"
ASK = """\
import json, socket, sys
with socket.socket(socket.AF_UNIX) as helper:
    helper.connect("/run/sgpud/limits.sock")
    helper.sendall(sys.argv[1].encode() + b"\\n")
    print(helper.recv(65536).decode())
"""
NEEDS = [
    "write /var/lib/sgpud",
    "write /run/sgpud",
    "open /dev/null",
    "AF_UNIX",
    "NVML",
    "child",
    "cgroup tree",
]
FORBIDDEN = {
    **FORBIDDEN_TO_ALL,
    "write /run/cdi": "EROFS",
    "serve in /var/lib/kubelet": "EROFS",
    "chown to the group": "EPERM",
}


@pytest.fixture(scope="module")
def sandbox(root: Path, package: Path, library: Path) -> dict[str, Any]:
    """What is possible under the unit as it is shipped."""
    return as_shipped(root, package, library, UNIT)


@pytest.mark.parametrize("need", NEEDS)
def test_what_it_needs_it_may(sandbox: dict[str, Any], need: str) -> None:
    assert sandbox[need] == "ok"


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_it_does_not_need_it_may_not(sandbox: dict[str, Any], what: str) -> None:
    assert sandbox[what] in FORBIDDEN[what].split()


def test_it_has_one_capability_and_gets_no_other(sandbox: dict[str, Any]) -> None:
    assert sandbox["status"] == {
        "CapBnd": "0000000000200000",
        "CapEff": "0000000000200000",
        "NoNewPrivs": "1",
        "Umask": "0077",
    }
    assert sandbox["interfaces"] == ["lo"]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="there is no other ABI to try")
def test_calls_by_another_abi_are_not_carried_out(sandbox: dict[str, Any]) -> None:
    assert sandbox["foreign ABI"] != "ok"


def test_its_exposure_is_rated_low(machine: Machine) -> None:
    unit = "/lib/systemd/system/sgpud-limits.service"
    machine.run(f"systemd-analyze security --offline=true --threshold=30 {unit}")


def test_it_is_not_started_unless_it_is_wanted(machine: Machine) -> None:
    assert shown(machine, "ActiveState", UNIT) == "inactive"
    assert machine.run(f"systemctl is-enabled {UNIT}", check=False).stdout.strip() == "disabled"


def ask(machine: Machine, **request: object) -> dict[str, Any]:
    """The answer of the helper to a request."""
    (machine.shared / "ask.py").write_text(ASK)
    answer: dict[str, Any] = json.loads(machine.says(f"python3 /io/ask.py '{json.dumps(request)}'"))
    return answer


def test_it_limits_a_pods_cgroup_and_comes_back_after_a_kill(machine: Machine) -> None:
    machine.write(SCRIPT, f"{ONE_GPU}limits misc\n")
    drop_in(machine, "stub", STUB, UNIT)
    machine.run(f"mkdir -p {POD} && systemctl enable --now {UNIT}")
    assert ask(machine, op="probe", gpus=[GPU])["gpus"][GPU]["backend"] == "misc"
    target = {"pod": "0123456789abcdef0123456789abcdef", "cgroup": POD, "gpu": GPU}
    size = 2**30
    assert ask(machine, op="set", bytes=size, **target) == {"ok": True, "limit": size}
    before = shown(machine, "MainPID", UNIT)
    machine.run(f"kill -9 {before}")

    def back() -> bool:
        state = shown(machine, "ActiveState", UNIT)
        return state == "active" and shown(machine, "MainPID", UNIT) not in {"0", before}

    until(back, "another helper runs", SLOWLY)
    (cap,) = ask(machine, op="get")["caps"]
    assert (cap["limit"], cap["pod"]) == (size, target["pod"])
    assert ask(machine, op="clear", **target) == {"ok": True}
    machine.run("apt-get remove -y sgpud")
    assert shown(machine, "ActiveState", UNIT) == "inactive"
