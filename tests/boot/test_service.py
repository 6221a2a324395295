"""The service under systemd: how it starts, reloads, falls and comes back."""

from __future__ import annotations

from tests.boot.machine import Machine
from tests.boot.node import CONFIG, RESOURCE, Host, drop_in, journal, said, shown
from tests.e2e.waiting import until

BAD = "[sharing]\nduplication_factor = 0\n"


def listed_healthy(host: Host) -> set[str]:
    """The ids that the kubelet has as Healthy."""
    devices = host.kubelet.devices(RESOURCE)
    return {share for share, listed in devices.items() if listed.health == "Healthy"}


def test_it_starts_and_the_kubelet_has_the_shares(host: Host) -> None:
    status = host.status(": registered, ")
    assert status == f"{RESOURCE}: registered, 0 held, 100 free on 1 GPU (100 allocatable)"
    assert shown(host.machine, "ActiveState") == "active"
    held = host.admit("pod")
    assert held.envs["SGPUD_SHARES"] == "1"
    host.status("1 held")


def test_a_good_file_is_applied_by_a_reload(host: Host) -> None:
    host.admit("pod")
    host.machine.write(CONFIG, "[sharing]\nduplication_factor = 20\n")
    host.machine.run("systemctl reload sgpud")
    host.became(20, 100)
    assert len(host.kubelet.registrations) == 1
    said(host.machine, "Configuration applied")


def test_a_bad_file_makes_the_reload_fail_and_changes_nothing(host: Host) -> None:
    host.machine.write(CONFIG, BAD)
    done = host.machine.run("systemctl reload sgpud", check=False)
    assert done.returncode != 0
    assert shown(host.machine, "ActiveState") == "active"
    assert f"{CONFIG}:2" in host.status("is not in use")
    assert (host.kubelet.allocatable(RESOURCE), host.kubelet.capacity(RESOURCE)) == (100, 100)
    host.machine.write(CONFIG, "")
    host.machine.run("systemctl reload sgpud")
    assert "not in use" not in host.status(": registered, ")


def test_a_start_on_a_bad_file_uses_what_was_good_last(host: Host) -> None:
    host.machine.write(CONFIG, "[sharing]\nduplication_factor = 30\n")
    host.machine.run("systemctl reload sgpud")
    host.became(30, 100)
    host.machine.write(CONFIG, BAD)
    before = host.pid
    host.machine.run("systemctl restart sgpud")
    assert host.restarted(before)
    host.status("is not in use")
    until(lambda: host.kubelet.allocatable(RESOURCE) == 30, "30 shares are free", 60)


def test_a_bad_file_without_a_good_one_ends_with_78_and_stays_down(host: Host) -> None:
    machine = host.machine
    machine.run("systemctl stop sgpud && rm -rf /var/lib/sgpud/*")
    machine.write(CONFIG, BAD)
    assert machine.run("systemctl start sgpud", check=False).returncode != 0
    assert shown(machine, "ActiveState") == "failed"
    assert shown(machine, "ExecMainStatus") == "78"
    assert shown(machine, "NRestarts") == "0"
    said(machine, f"{CONFIG}:2")


def test_killed_it_is_back_with_what_was_held(host: Host) -> None:
    held = host.admit("pod").ids
    before = host.pid
    host.machine.run(f"kill -9 {before}")
    assert host.restarted(before)
    host.became(100, 100)
    host.status("registered, 1 held")
    assert host.kubelet.container("uid-pod", "main").ids == held
    assert set(held[RESOURCE]) <= host.kubelet.lists(RESOURCE)[-1].healthy


def test_a_process_that_stands_still_is_ended_by_the_watchdog(host: Host) -> None:
    machine = host.machine
    drop_in(machine, "watchdog", "[Service]\nWatchdogSec=4\n")
    before = host.pid
    machine.run("systemctl restart sgpud")
    first = host.restarted(before)
    host.became(100, 100)
    machine.run(f"kill -STOP {first}")
    assert host.restarted(first)
    host.became(100, 100)
    said(machine, "Watchdog timeout")


def test_a_full_disk_costs_only_what_was_to_be_kept(host: Host) -> None:
    machine = host.machine
    machine.run(
        "systemctl stop sgpud && mount -t tmpfs -o size=16k,mode=700 none /var/lib/sgpud"
        " && (head -c 1M /dev/zero >/var/lib/sgpud/ballast; true)"
    )
    machine.run("systemctl start sgpud")
    said(machine, "The state is not saved: cannot write /var/lib/sgpud")
    host.became(100, 100)
    host.admit("pod")
    machine.write(CONFIG, "[sharing]\nduplication_factor = 50\n")
    machine.run("systemctl reload sgpud")
    host.became(50, 100)
    assert shown(machine, "ActiveState") == "active"


def test_a_driver_that_hangs_delays_no_start_and_held_shares_are_listed(host: Host) -> None:
    held = host.admit("pod").ids[RESOURCE]
    machine = host.machine
    machine.run("systemctl stop sgpud")
    script = machine.path("/etc/stub-nvml").read_text()
    machine.write("/etc/stub-nvml", f"{script}hang nvmlInitWithFlags -1\n")
    machine.run("systemctl start sgpud")
    until(
        lambda: set(held) <= listed_healthy(host),
        "held shares are listed before the driver answers",
        60,
    )
    host.became(1, 100)
    machine.write("/etc/stub-nvml", script)
    host.became(100, 100)


def test_the_kubelets_folder_may_come_go_and_come_again(machine: Machine) -> None:
    with Host(machine) as host:
        host.became(100, 100)
    machine.run("rm -rf /var/lib/kubelet/device-plugins /var/lib/kubelet/pod-resources")
    said(machine, "was removed or replaced")
    with Host(machine) as host:
        host.became(100, 100)


def test_group_members_can_read_the_status_and_others_get_advice(host: Host) -> None:
    machine = host.machine
    machine.run("useradd --groups sgpud member && useradd other")
    assert machine.says("stat -c '%U %G %a %F' /run/sgpud/status.sock") == "root sgpud 660 socket"
    ask = "runuser --user {} -- sgpud {}"
    seen = machine.says(ask.format("member", "status"))
    assert f"{RESOURCE}: registered, 0 held, 100 free" in seen
    refused = machine.run(ask.format("other", "status"), check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "/run/sgpud/status.sock: run this as root, or as a member of its group" in refused.stderr
    # To see is not to change.
    assert machine.run(ask.format("member", "reload"), check=False).returncode == 1


def test_the_journal_has_priorities_and_one_line_for_each_transition(host: Host) -> None:
    machine = host.machine
    host.machine.write(CONFIG, BAD)
    machine.run("systemctl reload sgpud", check=False)
    said(machine, "duplication_factor")
    entries = [entry for entry in journal(machine) if entry.get("_COMM") == "sgpud"]
    messages = [str(entry["MESSAGE"]) for entry in entries]
    assert sum("registered with the kubelet" in message for message in messages) == 1
    assert not [message for message in messages if message.startswith("<")]
    priority = {str(entry["MESSAGE"]): entry["PRIORITY"] for entry in entries}
    assert next(p for m, p in priority.items() if "registered with the kubelet" in m) == "6"
    assert next(p for m, p in priority.items() if "duplication_factor" in m) in {"3", "4"}


def test_the_journal_finds_entries_by_their_fields(host: Host) -> None:
    machine = host.machine
    (entry,) = (
        entry
        for entry in journal(machine)
        if "registered with the kubelet" in str(entry["MESSAGE"])
    )
    found = machine.says(f"journalctl -u sgpud -o cat SGPUD_RESOURCE={RESOURCE}")
    assert str(entry["MESSAGE"]) in found.splitlines()
    assert (entry["SGPUD_RESOURCE"], entry["SYSLOG_IDENTIFIER"]) == (RESOURCE, "sgpud")
    assert str(entry["LOGGER"]).startswith("sgpud.")
    # The last words of a process that is gone belong to the unit, too.
    pid = host.pid
    machine.run("systemctl stop sgpud")
    last = [entry for entry in journal(machine) if entry["_PID"] == pid][-1]
    assert (last["_TRANSPORT"], last["_COMM"]) == ("journal", "sgpud")
