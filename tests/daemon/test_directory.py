"""The plugin directory comes, goes and is replaced under a running daemon."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node, shares
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.steps import admitted, listed

# What is mounted below stays in the daemon's namespace; `unshare` itself cannot see to that where
# the root is no mount.
ALONE = 'mount --make-rprivate / 2>/dev/null; exec "$@"'
PRIVATE = ("unshare", "--mount", "--propagation", "unchanged", "sh", "-c", ALONE, "sh")


def elsewhere(node: Node, directory: Path) -> StandInKubelet:
    """A kubelet whose plugin directory the daemon sees as a mount over the node's own."""
    node.plugin_dir = directory
    return node.kubelet()


@pytest.fixture
def mount(need_tool: Callable[[str], str]) -> None:
    """Needs mounts in a namespace of the daemon's own."""
    for tool in ("unshare", "nsenter", "mount"):
        need_tool(tool)
    if os.geteuid() != 0:
        pytest.skip("only root may mount")


def test_the_directory_does_not_exist_yet(node: Node) -> None:
    process = node.start()
    process.ready()
    process.status(lambda status: "no plugin directory" in status)
    with node.kubelet() as kubelet:
        listed(kubelet)
        process.status(lambda status: status.startswith(f"{RESOURCE}: registered, 0 held"))


def test_before_it_exists_a_reload_works_and_a_bad_edit_is_survived(node: Node) -> None:
    process = node.start()
    process.ready()
    process.said(f"Waiting for {node.plugin_dir}: the kubelet creates it")
    node.configure(4)
    assert process.ask("reload")["result"] == "applied"
    text = node.config.read_bytes()
    node.saved("last-good.toml", text.__eq__)
    process.end()
    node.write("[sharing]\nduplication_factor = 0\n")
    second = node.start()
    second.said("Running on the last good configuration")
    with node.kubelet() as kubelet:
        kubelet.next_registration(WITHIN)
        assert len(kubelet.next_devices(RESOURCE, WITHIN).devices) == 8


def test_a_directory_that_comes_with_another_owner_makes_it_a_standby(node: Node) -> None:
    process = node.start()
    process.ready()
    made = node.root / "made"
    made.mkdir()
    descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    made.rename(node.plugin_dir)
    process.status(lambda status: status.startswith("standby"))
    assert not node.control.exists()
    mark = process.notices.mark
    os.close(descriptor)
    process.notices.wait(lambda notice: "standby" not in notice.get("STATUS", "standby"), mark)
    assert process.ask("reload")["result"] == "unchanged"


def test_an_ordinary_user_is_referred_to_root(node: Node, kubelet: StandInKubelet) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    node.root.chmod(0o755)
    assert kubelet.plugin_dir == node.plugin_dir
    process = node.start(before=("setpriv", "--reuid=12345", "--clear-groups"))
    assert process.wait() == 1
    (line,) = [line.text for line in process.log.items]
    assert f"needs root: user 12345 cannot write {node.plugin_dir}" in line


def test_no_part_of_its_path_exists_yet(node: Node) -> None:
    node.plugin_dir = node.root / "a" / "b" / "plugins"
    node.start().ready()
    with node.kubelet() as kubelet:
        listed(kubelet)


def test_the_directory_is_removed_and_made_again(daemon: Process, kubelet: StandInKubelet) -> None:
    share = admitted(kubelet)
    kubelet.disk.remove()
    daemon.said("was removed or replaced")
    kubelet.disk.make()
    mark = daemon.log.mark
    kubelet.restart()
    listed(kubelet)
    daemon.said("its stream is live", mark)
    assert kubelet.devices(RESOURCE)[share].health == "Healthy"


def test_the_directory_is_replaced_by_a_fresh_one(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    kubelet.disk.replace()
    daemon.said("was removed or replaced")
    kubelet.restart()
    listed(kubelet)
    daemon.end()
    assert node.endpoints() == set()


@pytest.mark.usefixtures("mount")
def test_a_fresh_mount_over_the_directory(node: Node) -> None:
    node.plugin_dir.mkdir()
    process = node.start(before=PRIVATE)
    process.ready()
    fresh = node.root / "fresh"
    fresh.mkdir()
    enter = ("nsenter", "--mount", "--root", "--target", str(process.pid))
    subprocess.run([*enter, "mount", "--bind", fresh, node.plugin_dir], check=True, timeout=WITHIN)
    with elsewhere(node, fresh) as kubelet:
        listed(kubelet)
        admitted(kubelet)
        assert node.endpoints() == {kubelet.registrations[0].endpoint}
    process.end()


@pytest.mark.usefixtures("mount")
def test_a_mount_of_a_deleted_directory_ends_it_so_that_it_is_started_again(node: Node) -> None:
    node.plugin_dir.mkdir()
    real = node.root / "real"
    real.mkdir()
    script = f'mount --bind "{real}" "{node.plugin_dir}" && exec "$@"'
    process = node.start(before=(*PRIVATE, "sh", "-c", script, "sh"))
    with elsewhere(node, real) as kubelet:
        listed(kubelet)
        shutil.rmtree(real)
        assert process.wait() == 75
    process.said("is a mount of a directory that was deleted: mount it again")
    assert "STOPPING" in process.notices.items[-1]


def test_a_file_instead_of_the_directory_is_reported_and_then_served(node: Node) -> None:
    node.plugin_dir.write_text("not a folder")
    process = node.start()
    process.ready()
    process.said("Cannot serve")
    node.plugin_dir.unlink()
    with node.kubelet() as kubelet:
        listed(kubelet)
        assert kubelet.allocatable(RESOURCE) == len(shares(10, 10))


def test_a_file_in_the_directory_s_place_is_named_with_what_to_do(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    kubelet.stop()
    shutil.rmtree(node.plugin_dir)
    node.plugin_dir.write_text("not a directory\n")
    daemon.said(f"Cannot serve {node.plugin_dir}: not a directory. Remove it, and restart")
    daemon.status(lambda status: "no plugin directory" in status)
    node.plugin_dir.unlink()
    kubelet.start()
    listed(kubelet)
