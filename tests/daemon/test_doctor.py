"""`sgpud doctor` as a person and as a script run it, with a daemon and without."""

import json
import subprocess
from typing import Any

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node
from tests.daemon.process import Process
from tests.daemon.steps import BAD, options


def examined(node: Node, *words: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """The exit status, and the findings by check."""
    done = node.command("doctor", "--json", *options(node), *words)
    found: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(done.stdout)["findings"]:
        found.setdefault(one["check"], []).append(one)
    assert json.loads(done.stdout)["status"] == done.returncode, done.stderr
    return done.returncode, found


def test_a_node_with_a_daemon(node: Node, daemon: Process, kubelet: StandInKubelet) -> None:
    assert kubelet.running
    daemon.status(lambda status: "registered" in status)
    folder = node.root / "empty"
    folder.mkdir()
    # The sockets are told by their own paths: this machine's root is the node's.
    status, found = examined(node)
    assert [one["severity"] for one in found["kubelet"]] == ["good"]
    assert [one["severity"] for one in found["podresources"]] == ["good"]
    assert [one["severity"] for one in found["daemon"]] == ["good"]
    (registration,) = found["registration"]
    assert registration["what"] == f"{RESOURCE}: 20 shares allocatable"
    assert "fake" in found["driver"][0]["what"]
    assert all(one["severity"] != "error" for each in found.values() for one in each)
    assert status in (0, 3)


def test_a_node_without_a_daemon_and_without_a_kubelet(node: Node) -> None:
    node.write(BAD)
    status, found = examined(node)
    assert status == 4
    assert [one["severity"] for one in found["configuration"]] == ["error"] * 3
    assert [one["severity"] for one in found["kubelet"]] == ["error"]
    assert [one["severity"] for one in found["daemon"]] == ["note"]
    shown: subprocess.CompletedProcess[str] = node.command("doctor", *options(node))
    assert shown.returncode == 4
    assert "FAIL  kubelet: " in shown.stdout
    assert shown.stderr == ""
