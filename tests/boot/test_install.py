"""The package on a machine: installed, upgraded, removed, purged."""

from __future__ import annotations

from pathlib import Path

import sgpud
from tests.boot.absences import Absences
from tests.boot.machine import Machine
from tests.boot.node import (
    CONFIG,
    RESOURCE,
    STUB,
    Host,
    drop_in,
    earlier,
    fake_driver,
    install,
    said,
    shown,
)
from tests.e2e.waiting import until

TRACES = r"""find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /io \
    -o -path /var/log -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache \
    -o -path /var/lib/systemd -o -path /var/lib/private -o -path /root \) -prune -o -print | sort"""
"""Every file but those of others: the package managers', the journal's."""

STANDBY = "sgpud-standby.service"
ONLY_A_STANDBY_STARTS = "/bin/sh -c '[ %N != sgpud ] || [ ! -e /etc/broken ]'"


def test_without_gpu_and_kubelet_the_service_reports_that(bare: Machine) -> None:
    printed = install(bare)
    assert "no NVIDIA driver loaded" in printed
    assert "no kubelet running on this machine" in printed
    assert "/etc/sgpud.toml is valid" in printed
    assert shown(bare, "ActiveState") == "active"
    assert bare.says("systemctl is-enabled sgpud") == "enabled"
    assert "no-library" in shown(bare, "StatusText")
    assert bare.says("getent group sgpud").startswith("sgpud:")
    assert bare.says("stat -c '%U %G' /var/lib/kubelet") == "root root"
    assert bare.says("dpkg-query -W -f '${Conffiles}' sgpud").startswith("/etc/sgpud.toml ")
    assert bare.says("dpkg --verify sgpud") == ""


def test_installed_files_are_compiled_and_ignore_other_pythons(bare: Machine) -> None:
    install(bare)
    folder = "/usr/share/sgpud"
    sources = bare.says(f"find {folder} -name '*.py' | wc -l")
    assert bare.says(f"find {folder} -name '*.pyc' | wc -l") == sources
    bare.write("/evil/attr.py", "raise SystemExit('the wrong one')\n")
    assert bare.says("PYTHONPATH=/evil sgpud --version") == f"sgpud {sgpud.__version__}"
    assert bare.says("ls /usr/share/man/man8/sgpud.8.gz /usr/share/man/man5/sgpud.toml.5.gz")


def test_the_units_have_nothing_to_complain_about(bare: Machine) -> None:
    install(bare)
    done = bare.run(
        "systemd-analyze verify --man=no sgpud.service sgpud-nodes.service sgpud-limits.service"
    )
    assert done.stdout + done.stderr == ""
    bare.run(
        "systemd-analyze security --offline=true --threshold=15 /lib/systemd/system/sgpud.service"
    )


def test_completion_offers_commands_and_options(bare: Machine) -> None:
    install(bare)
    complete = (
        "source /usr/share/bash-completion/completions/sgpud; COMP_WORDS=(sgpud {}); "
        "COMP_CWORD={}; _sgpud; echo ${{COMPREPLY[*]}}"
    )
    assert bare.says(complete.format("rel", 1)).split() == ["reload", "release"]
    assert "--strict" in bare.says(complete.format("run --st", 2)).split()


def test_a_driver_that_comes_later_is_used_without_a_restart(bare: Machine, library: Path) -> None:
    drop_in(bare, "stub", STUB)
    install(bare)
    with Host(bare) as host:
        host.status("no-library")
        before = host.pid
        fake_driver(bare, library)
        host.became(100, 100)
        assert host.pid == before


def test_device_nodes_are_made_by_nvidia_modprobe_where_it_is(bare: Machine) -> None:
    bare.write("/usr/bin/nvidia-modprobe", '#!/bin/sh\necho "$@" >>/var/lib/called\nexec cat\n')
    bare.run("chmod 755 /usr/bin/nvidia-modprobe")
    install(bare)
    called = until(
        lambda: bare.run("cat /var/lib/called", check=False).stdout, "nvidia-modprobe is called"
    )
    assert called.split() == ["-c0", "-u"]
    assert shown(bare, "ActiveState") == "active"


def test_an_upgrade_keeps_what_is_held_and_the_shares_that_are_listed(
    bare: Machine, library: Path, package: Path, tmp_path: Path
) -> None:
    earlier(package, tmp_path, bare.shared / "earlier.deb")
    fake_driver(bare, library)
    install(bare, "earlier.deb")
    with Host(bare) as host:
        host.became(100, 100)
        held = host.admit("pod").ids
        assert '"version": "0.0.9"' in bare.says("sgpud plan --json")
        before = host.pid
        with Absences(host.kubelet, RESOURCE, 100) as absences:
            install(bare)
            assert host.restarted(before)
            host.became(100, 100)
        until(
            lambda: f'"version": "{sgpud.__version__}"' in bare.says("sgpud plan --json"),
            "the new version serves",
            60,
        )
        assert bare.run("systemctl status sgpud-standby", check=False).returncode == 4
        assert host.kubelet.container("uid-pod", "main").ids == held
        host.status("registered, 1 held, 99 free")
        # Each of the two handovers is one new registration: nobody was without a plugin for long.
        assert len(host.kubelet.registrations) == 3
        assert len(absences.lasted) <= 2


def test_an_upgrade_leaves_what_was_stopped_as_it_is(
    bare: Machine, package: Path, tmp_path: Path
) -> None:
    earlier(package, tmp_path, bare.shared / "earlier.deb")
    install(bare, "earlier.deb")
    bare.run("systemctl stop sgpud")
    assert "sgpud.service is inactive, and is left so" in install(bare)
    assert bare.says("sgpud --version") == f"sgpud {sgpud.__version__}"
    assert bare.says("systemctl is-enabled sgpud") == "enabled"
    # One that failed, and whose cause is mended meanwhile, waits for its admin as well.
    bare.write(CONFIG, "[sharing]\nduplication_factor = 0\n")
    bare.run("rm -rf /var/lib/sgpud/*; systemctl start sgpud", check=False)
    bare.run("systemctl stop sgpud")
    assert shown(bare, "ActiveState") == "failed"
    bare.write(CONFIG, "")
    assert "sgpud.service is failed, and is left so" in install(bare, "earlier.deb")
    assert (shown(bare, "ActiveState"), shown(bare, "MainPID")) == ("failed", "0")


def test_one_that_is_tried_again_and_again_gets_the_new_version(
    bare: Machine, package: Path, tmp_path: Path
) -> None:
    earlier(package, tmp_path, bare.shared / "earlier.deb")
    install(bare, "earlier.deb")
    bare.write("/etc/broken", "")
    drop_in(bare, "broken", f"[Service]\nExecStartPre={ONLY_A_STANDBY_STARTS}\n")
    bare.run("systemctl restart sgpud", check=False)
    assert "and is left so" in install(bare)
    bare.run("rm /etc/broken")
    until(lambda: shown(bare, "ActiveState") == "active", "it starts at last", 60)
    assert f'"version": "{sgpud.__version__}"' in bare.says("sgpud plan --json")


def test_removed_and_installed_again_it_runs_unless_it_is_disabled(bare: Machine) -> None:
    install(bare)
    bare.run("apt-get remove -y sgpud")
    assert bare.run("pidof -x sgpud", check=False).stdout == ""
    install(bare)
    assert shown(bare, "ActiveState") == "active"
    assert bare.run("ls /run/sgpud.install", check=False).returncode != 0
    bare.run("systemctl disable sgpud && apt-get remove -y sgpud")
    install(bare)
    assert shown(bare, "ActiveState") == "inactive"
    assert bare.run("systemctl is-enabled sgpud", check=False).stdout.strip() == "disabled"


def test_where_the_policy_is_that_nothing_be_started_nothing_is(bare: Machine) -> None:
    bare.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
    bare.run("chmod 755 /usr/sbin/policy-rc.d")
    install(bare)
    assert shown(bare, "ActiveState") == "inactive"
    assert bare.says("systemctl is-enabled sgpud") == "enabled"
    bare.run("systemctl start sgpud")
    before = shown(bare, "MainPID")
    bare.run("apt-get install -y --reinstall /io/sgpud.deb")
    assert shown(bare, "MainPID") == before
    bare.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 104\n")
    bare.run("chmod 755 /usr/sbin/policy-rc.d")
    bare.run("apt-get install -y --reinstall /io/sgpud.deb")
    assert shown(bare, "MainPID") not in {before, "0"}


def test_a_standby_that_had_to_stay_goes_with_the_next_upgrade_or_the_package(
    bare: Machine,
) -> None:
    install(bare)
    drop_in(bare, "broken", f"[Service]\nExecStartPre={ONLY_A_STANDBY_STARTS}\n")
    bare.write("/etc/broken", "")
    assert bare.run("/usr/libexec/sgpud/handover", check=False).returncode == 1
    assert shown(bare, "ActiveState", STANDBY) == "active"
    bare.run("rm /etc/broken && apt-get install -y --reinstall /io/sgpud.deb")
    assert shown(bare, "ActiveState") == "active"
    assert shown(bare, "LoadState", STANDBY) == "not-found"
    bare.write("/etc/broken", "")
    assert bare.run("/usr/libexec/sgpud/handover", check=False).returncode == 1
    bare.run("apt-get remove -y sgpud")
    assert bare.run("pidof -x sgpud", check=False).stdout == ""
    assert shown(bare, "LoadState", STANDBY) == "not-found"


def test_removing_keeps_the_configuration_and_purging_leaves_nothing(bare: Machine) -> None:
    bare.run("mkdir -p /etc/systemd/system/multi-user.target.wants")
    before = bare.says(TRACES)
    install(bare)
    bare.write("/etc/sgpud.toml", "[sharing]\nduplication_factor = 7\n")
    bare.run("apt-get remove -y sgpud")
    assert bare.says("cat /etc/sgpud.toml").endswith("duplication_factor = 7")
    assert bare.run("systemctl is-active sgpud", check=False).stdout.strip() == "inactive"
    bare.run("apt-get purge -y sgpud")
    left = set(bare.says(TRACES).splitlines()) - set(before.splitlines())
    own = {path for path in left if path.rpartition("/")[2] not in {"gshadow-", "group-"}}
    assert own == set()
    assert bare.run("getent group sgpud", check=False).returncode == 2
    assert bare.run("ls /run/sgpud", check=False).returncode != 0


def test_a_drop_in_opens_the_network_for_metrics(host: Host) -> None:
    machine = host.machine
    machine.write("/etc/sgpud.toml", '[http]\nlisten = "tcp:9449:interface=127.0.0.1"\n')
    machine.run("systemctl restart sgpud")
    said(machine, "run /usr/libexec/sgpud/allow-http")
    get = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9449/metrics').status)"
    assert machine.run(f'python3 -c "{get}"', check=False).returncode != 0
    assert "allow-http" in machine.says("sgpud status")
    machine.run("/usr/libexec/sgpud/allow-http")
    assert machine.says(f'python3 -c "{get}"') == "200"
