"""Pods of the DaemonSet on a node: read-only, without capabilities, beside a kubelet."""

from __future__ import annotations

import json
import time
from threading import Thread

from sgpud.cli.commands import EX_CONFIG
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.image.machine import WITHIN, Machine, Pod

RESOURCE = "deepomatic.com/shared-gpu"
ALL = 200
"""Shares of the two fake GPUs."""
AT_MOST = 0.1
"""Seconds for which a handover may leave the node without shares."""
TRIES = 10
"""A busy machine may be slow at one handover; it is not at all of ten."""


def serving(machine: Machine, kubelet: StandInKubelet) -> Pod:
    pod = machine.start()
    kubelet.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == ALL, WITHIN)
    return pod


def ready(machine: Machine, pod: Pod) -> None:
    """Wait until the readiness probe passes; podman's exec takes its time between two tries."""
    end = time.monotonic() + WITHIN
    while pod.probe("readinessProbe", machine.manifest.container) != 200:
        assert time.monotonic() < end, pod.logs()


def test_shares_appear_and_a_container_gets_one(machine: Machine, kubelet: StandInKubelet) -> None:
    pod = serving(machine, kubelet)
    container = kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1})
    assert container.envs["SGPUD_SHARES"] == "1"
    ready(machine, pod)
    for probe in ("startupProbe", "livenessProbe"):
        assert pod.probe(probe, machine.manifest.container) == 200


def test_it_has_nothing_to_complain_of(machine: Machine, kubelet: StandInKubelet) -> None:
    pod = serving(machine, kubelet)
    ready(machine, pod)
    said = [json.loads(line) for line in pod.logs().splitlines()]
    assert said
    assert [line for line in said if line["level"] != "info"] == []


def test_an_edited_config_map_is_a_reload_on_the_same_stream(
    machine: Machine, kubelet: StandInKubelet
) -> None:
    serving(machine, kubelet)
    text = machine.manifest.files["sgpud.toml"]
    machine.configure(text.replace("duplication_factor = 100", "duplication_factor = 7"))
    kubelet.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == 14, WITHIN)
    machine.configure("[sharing\n")
    machine.configure(text.replace("duplication_factor = 100", "duplication_factor = 8"))
    kubelet.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == 16, WITHIN)
    assert len(kubelet.registrations) == 1


def test_a_person_can_look_from_inside(machine: Machine, kubelet: StandInKubelet) -> None:
    pod = serving(machine, kubelet)
    assert f"{RESOURCE}: registered" in pod.execute("sgpud", "status").stdout
    checked = pod.execute("sgpud", "doctor", "--json", "--fake-gpus=/etc/sgpud/gpus.toml")
    findings = json.loads(checked.stdout)["findings"]
    good = {each["check"] for each in findings if each["severity"] == "good"}
    # What is the node's (its container runtime, its cgroups) is not mounted, and may be missed.
    assert {"configuration", "kubelet", "podresources", "daemon", "registration"} <= good, findings
    machine.configure("[sharing]\nfactor = 1\n")
    wrong = pod.execute("sgpud", "check-config")
    assert wrong.returncode == EX_CONFIG
    assert "/etc/sgpud.toml:2: sharing.factor" in wrong.stdout


def test_a_terminated_pod_ends_by_itself_within_its_grace_period(
    machine: Machine, kubelet: StandInKubelet
) -> None:
    pod = serving(machine, kubelet)
    assert pod.terminate(machine.manifest.pod["terminationGracePeriodSeconds"]) == 0
    assert kubelet.allocatable(RESOURCE) == 0
    assert list((machine.root / "device-plugins").glob("sgpud-*")) == []


def test_a_rollout_removes_no_share_for_long(machine: Machine, kubelet: StandInKubelet) -> None:
    old = serving(machine, kubelet)
    held = kubelet.admit("uid", "default", "pod", "main", {RESOURCE: 1}).ids[RESOURCE]
    grace = machine.manifest.pod["terminationGracePeriodSeconds"]
    away: list[float] = []
    for _ in range(TRIES):
        new = machine.start()
        ready(machine, new)
        assert len(kubelet.registrations) == len(away) + 1
        away.append(handover(kubelet, old, grace))
        assert set(held) <= kubelet.devices(RESOURCE).keys()
        old = new
        if away[-1] <= AT_MOST:
            break
    print(f"away for {[round(1000 * each) for each in away]} ms")  # noqa: T201 - to report
    assert min(away) <= AT_MOST


def handover(kubelet: StandInKubelet, old: Pod, grace: int) -> float:
    """End the old pod; the seconds from the first share's absence to the last one's return."""
    ending = Thread(target=old.terminate, args=(grace,))
    ending.start()
    kubelet.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) < ALL, WITHIN)
    gone = time.monotonic()
    kubelet.wait_for(lambda kubelet: kubelet.allocatable(RESOURCE) == ALL, WITHIN)
    back = time.monotonic()
    ending.join()
    return back - gone
