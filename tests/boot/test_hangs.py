"""A service that hangs is ended and started again, and nobody waits longer than is said."""

from __future__ import annotations

from pathlib import Path

from tests.boot.hang import FIFO
from tests.boot.machine import Machine
from tests.boot.node import RESOURCE, Host, drop_in, journal, said, shown
from tests.e2e.waiting import until

HERE = Path(__file__).parent
PACKAGES = "/usr/bin/python3 -Ic 'import site; print(site.getsitepackages()[0])'"
NODE = """\
[Unit]
DefaultDependencies=no
Wants=sgpud.service kubelet.service
"""
"""A target that begins both in one transaction, as a boot does, and is reached at once."""
KUBELET = """\
[Service]
Type=exec
ExecStart=/usr/bin/tail -f /dev/null
"""
MAY_HOLD_BACK = 10
"""Seconds that docs/systemd.md says."""
MARGIN = 5
"""Seconds more, on a machine that does other work too."""


def hang(machine: Machine, where: str, more: str = "") -> None:
    """Let the next starts of the unit hang there."""
    folder = machine.says(PACKAGES)
    machine.write(f"{folder}/test_hang.py", (HERE / "hang.py").read_text())
    machine.write(f"{folder}/test_hang.pth", "import test_hang\n")
    machine.run(f"mkfifo {FIFO}")
    drop_in(machine, "hang", f"[Service]\nEnvironment=TEST_HANG={where}\n{more}")


def stacks(machine: Machine, pid: str) -> list[list[str]]:
    """The stack of each thread, as this process wrote them: the innermost call first."""
    found: list[list[str]] = []
    for entry in journal(machine):
        line = str(entry["MESSAGE"]).strip()
        if entry.get("_PID") != pid:
            continue
        if line.endswith("(most recent call first):"):
            found.append([])
        elif found and line.startswith("File "):
            found[-1].append(line)
    return found


def moment(machine: Machine, name: str, unit: str) -> float:
    """A moment of this boot that systemd noted, in seconds."""
    return int(shown(machine, f"{name}TimestampMonotonic", unit)) / 1e6


def test_a_reactor_that_blocks_is_ended_by_the_watchdog_and_says_where_it_was(host: Host) -> None:
    machine = host.machine
    held = host.admit("pod").ids
    hang(machine, "reactor", "WatchdogSec=4\n")
    before = host.pid
    machine.run("systemctl restart sgpud")
    blocked = host.restarted(before)
    host.status("registered, 1 held")
    registered = len(host.kubelet.registrations)
    machine.run(f": >{FIFO}")  # opens it only: nobody reads
    assert host.restarted(blocked)
    host.became(100, 100)
    host.status("registered, 1 held")
    assert shown(machine, "NRestarts") == "1"
    said(machine, "Failed with result 'watchdog'")
    assert len(host.kubelet.registrations) == registered + 1
    assert host.kubelet.container("uid-pod", "main").ids == held
    assert set(held[RESOURCE]) <= host.kubelet.lists(RESOURCE)[-1].healthy
    (stack,) = (
        stack
        for stack in stacks(machine, blocked)
        if any(call.endswith(" in runUntilCurrent") for call in stack)
    )
    assert stack[0].endswith(" in wait")
    assert stack[-1].startswith('File "/usr/bin/sgpud"')


def test_a_start_that_hangs_delays_the_kubelet_until_its_timeout_only(
    machine: Machine,
) -> None:
    machine.run("systemctl stop sgpud")
    hang(machine, "start")
    machine.write("/etc/systemd/system/kubelet.service", KUBELET)
    machine.write("/etc/systemd/system/node.target", NODE)
    machine.run("systemctl daemon-reload && systemctl start --no-block node.target")
    until(lambda: shown(machine, "ActiveState", "kubelet") == "active", "the kubelet starts", 60)
    began = moment(machine, "ActiveEnter", "node.target")
    started = moment(machine, "ExecMainStart", "kubelet.service")
    assert started - began < MAY_HOLD_BACK + MARGIN
    said(machine, "start operation timed out")
    lines = machine.says("journalctl -o cat -u sgpud -u kubelet").splitlines()
    (released,) = (n for n, line in enumerate(lines) if line.startswith("Started kubelet"))
    assert any("start operation timed out" in line for line in lines[:released])
    # It is tried again and again meanwhile, and the kubelet is not touched when it succeeds.
    until(lambda: shown(machine, "NRestarts") != "0", "it is started again", 60)
    kubelet = shown(machine, "MainPID", "kubelet")
    drop_in(machine, "hang", "")
    until(lambda: shown(machine, "ActiveState") == "active", "it starts at last", 60)
    assert shown(machine, "MainPID", "kubelet") == kubelet
