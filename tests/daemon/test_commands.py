"""The commands, as a person and as a script run them, with a daemon and without one."""

import json
import subprocess
from typing import Any

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import OTHER, RESOURCE, A, B, Node, of
from tests.daemon.process import Process
from tests.daemon.steps import BAD, PLACES, admit, became, options


def document(done: subprocess.CompletedProcess[str], status: int = 0) -> dict[str, Any]:
    """What a command with --json has printed."""
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_gpus(node: Node) -> None:
    node.configure(rest=f'[gpus]\ndeny = ["{B}"]\n')
    shown = node.command("gpus", *options(node))
    assert shown.returncode == 0, shown.stderr
    table = [line.split() for line in shown.stdout.splitlines()]
    assert ["0", A, "NVIDIA", "A100-SXM4-40GB", "40GiB", "0", "10", "x", RESOURCE] in table
    assert ["1", B, "NVIDIA", "L4", "24GiB", "1", "not", "shared"] in table
    found = document(node.command("gpus", "--json", *options(node)))
    assert [gpu["uuid"] for gpu in found["gpus"]] == [A, B]
    assert found["gpus"][0]["memory"] == 40 * 2**30
    assert found["gpus"][0]["shared"] == {"resource": RESOURCE, "shares": 10}
    assert found["gpus"][1]["shared"] is None
    assert found["fault"] == ""


def test_gpus_with_a_bad_configuration_still_shows_them(node: Node) -> None:
    node.write(BAD)
    shown = node.command("gpus", *options(node))
    assert shown.returncode == 0
    assert A in shown.stdout
    assert f"Shown with the default configuration: {node.config}:2: " in shown.stdout


def test_gpus_without_a_driver_says_what_to_do(node: Node) -> None:
    shown = node.command(
        "gpus", "--config", str(node.config), environment={"LD_LIBRARY_PATH": str(node.root)}
    )
    if shown.returncode == 0:
        pytest.skip("there is a driver on this machine")
    assert shown.returncode == 1
    assert "Cannot read GPUs: no-library: " in shown.stdout
    assert "Traceback" not in shown.stderr


def test_check_config(node: Node) -> None:
    good = node.command("check-config", str(node.config))
    assert (good.returncode, good.stdout) == (0, f"{node.config} is valid\n")
    assert document(node.command("check-config", "--json", str(node.config)))["good"] is True
    node.write(BAD)
    bad = node.command("check-config", str(node.config))
    assert bad.returncode == 78
    for place in PLACES:
        assert f"{node.config}{place}" in bad.stdout
    found = document(node.command("check-config", "--json", str(node.config)), 78)
    assert (found["good"], len(found["errors"])) == (False, 3)


def test_plan_without_a_daemon_shows_what_would_be_advertised(
    node: Node, kubelet: StandInKubelet
) -> None:
    assert kubelet.running
    shown = node.command("plan", *options(node))
    assert shown.returncode == 0, shown.stderr
    assert "not running" in shown.stdout
    assert f"{RESOURCE}: not registered" in shown.stdout
    found = document(node.command("plan", "--json", *options(node)))
    (pool,) = found["view"]["pools"]
    assert [gpu["free"] for gpu in pool["gpus"]] == [10, 10]
    assert found["reload"] is None
    node.write(BAD)
    bad = node.command("plan", *options(node))
    assert (bad.returncode, bad.stdout) == (78, "")
    for place in PLACES:
        assert f"{node.config}{place}" in bad.stderr


def test_plan_without_a_daemon_knows_the_holders(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    admit(kubelet, "held", 2)
    daemon.end()
    node.configure(1)
    (pool,) = document(node.command("plan", "--json", *options(node)))["view"]["pools"]
    assert [gpu["held"] for gpu in pool["gpus"]] == [1, 1]
    assert [gpu["shares"] for gpu in pool["gpus"]] == [1, 1]


def test_plan_with_a_daemon_shows_what_a_reload_would_change_and_changes_nothing(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    admit(kubelet, "held", 2)
    daemon.status(lambda status: "2 held" in status)
    messages = len(kubelet.lists(RESOURCE))
    node.configure(4)
    there = ("--run-dir", str(node.run))
    shown = node.command("plan", *there)
    assert shown.returncode == 0
    assert "A reload would change:" in shown.stdout
    assert "sharing.duplication_factor: 10 -> 4" in shown.stdout
    assert f"{RESOURCE} {A}: 10 -> 4 shares, 1 held and kept, 6 draining" in shown.stdout
    found = document(node.command("plan", "--json", *there))
    assert found["reload"]["result"] == "applied"
    assert found["view"]["serving"] == "serving"
    node.write(BAD)
    found = document(node.command("plan", "--json", *there))
    assert found["reload"]["result"] == "refused"
    assert len(kubelet.lists(RESOURCE)) == messages
    assert daemon.view()["counters"]["reloads"] == {}


def test_release_withholds_what_is_free_and_acquire_brings_it_back(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    held = set(admit(kubelet, "held", 2).ids[RESOURCE])
    there = ("--run-dir", str(node.run))
    shown = node.command("release", *there)
    assert shown.returncode == 0
    assert "held shares stay, free ones are withheld" in shown.stdout
    became(kubelet, RESOURCE, 2, 20)
    assert kubelet.lists(RESOURCE)[-1].healthy == held
    daemon.status(lambda status: "run `sgpud acquire`" in status)
    assert node.command("acquire", *there).stdout == "Reading the GPUs again.\n"
    became(kubelet, RESOURCE, 20, 20)
    assert document(node.command("release", "--json", *there)) == {"released": True}
    became(kubelet, RESOURCE, 2, 20)
    assert document(node.command("acquire", "--json", *there)) == {"acquired": True}
    became(kubelet, RESOURCE, 20, 20)
    assert len(kubelet.attempts) == 1
    assert of(A, held)


@pytest.mark.parametrize("command", ["reload", "release", "acquire"])
def test_verbs_without_a_daemon(node: Node, command: str) -> None:
    done = node.command(command, "--json", "--run-dir", str(node.run))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"sgpud: No sgpud answers on {node.control}. Start it")


def test_set_on_the_command_line_is_over_the_file(node: Node, kubelet: StandInKubelet) -> None:
    process = node.start("--set", f"sharing.resource={OTHER}")
    became(kubelet, OTHER, 20, 20)
    node.configure(3)
    process.ask("reload")
    became(kubelet, OTHER, 6, 20)


def test_wrong_arguments_and_help_show_usage(node: Node) -> None:
    assert node.command().returncode == 2
    shown = node.command("--help")
    assert shown.returncode == 0
    for word in ("run", "check-config", "gpus", "plan", "reload", "release", "acquire", "75", "78"):
        assert word in shown.stdout
