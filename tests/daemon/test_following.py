"""`--watch-config`: the file's own change is a reload, also that of a mounted ConfigMap."""

import os
from pathlib import Path

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node
from tests.daemon.record import WITHIN
from tests.daemon.steps import admit, became


def follow(node: Node, kubelet: StandInKubelet) -> None:
    """Start a daemon that follows its file, and have a share held."""
    node.start("--watch-config")
    became(kubelet, RESOURCE, 20, 20)
    admit(kubelet, "held")


def publish(volume: Path, version: str, text: str) -> None:
    """Write a version of a ConfigMap as the kubelet does: a new folder, then one rename."""
    folder = volume / f"..{version}"
    folder.mkdir()
    (folder / "sgpud.toml").write_text(text)
    link = volume / "..data_tmp"
    link.symlink_to(folder.name)
    link.rename(volume / "..data")


def test_a_plain_edit(node: Node, kubelet: StandInKubelet) -> None:
    follow(node, kubelet)
    with node.config.open("r+") as file:
        file.truncate()
        file.write(node.document(3))
    became(kubelet, RESOURCE, 6, 20)
    node.configure(5)
    became(kubelet, RESOURCE, 10, 20)
    assert len(kubelet.attempts) == 1


def test_a_configmap_whose_link_is_swapped(node: Node, kubelet: StandInKubelet) -> None:
    volume = node.root / "volume"
    volume.mkdir()
    publish(volume, "one", node.document())
    (volume / "sgpud.toml").symlink_to("..data/sgpud.toml")
    node.config = volume / "sgpud.toml"
    follow(node, kubelet)
    publish(volume, "two", node.document(4))
    became(kubelet, RESOURCE, 8, 20)
    publish(volume, "three", node.document(6))
    became(kubelet, RESOURCE, 12, 20)
    assert len(kubelet.attempts) == 1


def test_an_invalid_file_is_reported_and_the_next_valid_one_used(
    node: Node, kubelet: StandInKubelet
) -> None:
    follow(node, kubelet)
    node.write("[sharing\n")
    node.processes[0].status(lambda status: "is not in use (1 problem," in status)
    assert kubelet.allocatable(RESOURCE) == 20
    node.configure(7)
    became(kubelet, RESOURCE, 14, 20)


def test_a_touched_file_is_not_reloaded(node: Node, kubelet: StandInKubelet) -> None:
    follow(node, kubelet)
    process = node.processes[0]
    os.utime(node.config)
    node.configure()
    node.configure(8)
    process.notices.wait(lambda notice: "RELOADING" in notice, 0, WITHIN)
    became(kubelet, RESOURCE, 16, 20)
    assert process.view()["counters"]["reloads"] == {"applied": 1}
