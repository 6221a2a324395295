"""`sgpud explain`: what the daemon remembers of what the kubelet asked it."""

import pytest

from sgpud.testing.kubelet.plugins import PluginError
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, A, B, Node, of
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.steps import admit, explained, until_it_holds


def test_why_a_pod_has_its_gpu(node: Node, daemon: Process, kubelet: StandInKubelet) -> None:
    first = of(A, admit(kubelet, "first").ids[RESOURCE])
    second = admit(kubelet, "second").ids[RESOURCE]
    daemon.status(lambda status: "2 held" in status)
    found = until_it_holds(node, "default/second")
    (held,) = found["holders"]
    mine = B if first else A
    assert (held["gpu"], held["container"], held["shares"]) == (mine, "main", 1)
    preference, allocation = found["decisions"]
    assert (preference["kind"], allocation["kind"]) == ("preference", "allocation")
    assert (preference["rule"], allocation["rule"]) == ("distinct, spread", "distinct")
    taken = {gpu["gpu"]: gpu["taken"] for gpu in preference["gpus"]}
    assert taken == {mine: 1, ({A, B} - {mine}).pop(): 0}
    assert sorted(gpu["offered"] for gpu in preference["gpus"]) == [9, 10]
    (share,) = second
    about_share = explained(node, share)
    assert about_share["subject"] == "share"
    assert [one["at"] for one in about_share["decisions"]] == [preference["at"], allocation["at"]]
    about_gpu = explained(node, mine)
    assert [one["container"] for one in about_gpu["holders"]] == ["main"]
    shown = node.command("explain", "second", "--run-dir", str(node.run))
    assert shown.returncode == 0
    told = " ".join(shown.stdout.split())
    assert f"default/second/main holds 1 share of {RESOURCE} on {mine}, since " in told
    assert "first the GPU with the smallest fraction held" in told


def test_why_a_pod_did_not_start(node: Node, daemon: Process, kubelet: StandInKubelet) -> None:
    assert daemon.running
    with pytest.raises(PluginError) as caught:
        kubelet.plugin(RESOURCE).allocate((f"{A}::1", f"{A}::2"), WITHIN)
    found = explained(node, "default/refused")
    (refusal,) = found["decisions"]
    assert (refusal["kind"], refusal["rule"], refusal["asked"]) == ("refusal", "multiple", 2)
    assert refusal["why"] in caught.value.details
    assert {gpu["gpu"]: gpu["taken"] for gpu in refusal["gpus"]} == {A: 2, B: 0}
    text = "\n".join(found["answer"])
    assert "1 container;" in text
    assert f"{RESOURCE}: 20 shares can be given now, up to 2 to one container" in text


def test_a_missing_socket_and_one_without_a_listener(node: Node, daemon: Process) -> None:
    unknown = node.command("explain", "GPU-00000000", "--run-dir", str(node.run))
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert A in unknown.stderr
    daemon.end()
    nobody = node.command("explain", "default/pod", "--run-dir", str(node.run))
    assert nobody.returncode == 1
    assert "No sgpud answers" in nobody.stderr
