"""What it starts on when its file is bad, and what it keeps for that."""

import json
import os
import signal
import stat

import pytest

from sgpud.node.store import sealed
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import RESOURCE, Node, shares
from tests.daemon.process import Process
from tests.daemon.record import WITHIN
from tests.daemon.steps import BAD, PLACES, admit, became


def refused(process: Process) -> str:
    """Wait for its end with status 78; what it wrote."""
    assert process.wait() == 78
    return "\n".join(line.text for line in process.log.items)


@pytest.fixture
def broken(node: Node) -> Node:
    """A node with a last good configuration, whose file has become bad."""
    node.state.mkdir()
    (node.state / "last-good.toml").write_bytes(sealed(node.document(7).encode()))
    node.write(BAD)
    return node


def test_a_bad_file_and_nothing_else_ends_it_with_every_problem(node: Node) -> None:
    node.write(BAD)
    said = refused(node.start())
    for place in PLACES:
        assert f"{node.config}{place}" in said
    assert "Traceback" not in said
    assert not node.state.exists()


def test_a_missing_file(node: Node) -> None:
    node.config.unlink()
    assert f"{node.config}: does not exist" in refused(node.start())


def test_a_file_over_the_limit(node: Node) -> None:
    node.write(node.document() + "#" * 256 * 1024)
    said = refused(node.start())
    assert f"{node.config}: is larger than 262144 bytes" in said


def test_an_invalid_override_on_the_command_line(node: Node) -> None:
    said = refused(node.start("--set", "sharing.duplication_factor=many"))
    assert "--set: sharing.duplication_factor: " in said


def test_a_bad_file_of_fake_gpus(node: Node) -> None:
    node.gpus.write_text('[[gpu]]\nproduct = "NVIDIA L4"\nmemory = "24"\n')
    assert f"{node.gpus}:3: gpu.memory: " in refused(node.start())


def test_the_last_good_configuration_is_used_and_reported_everywhere(
    broken: Node, kubelet: StandInKubelet
) -> None:
    process = broken.start()
    became(kubelet, RESOURCE, 14, 14)
    process.said("Running on the last good configuration")
    for place in PLACES:
        process.said(f"{broken.config}{place}")
    process.status(lambda status: f"{broken.config} is not in use (3 problems" in status)
    shown = broken.command("plan", "--json", "--run-dir", str(broken.run))
    seen = json.loads(shown.stdout)["view"]["configuration"]
    assert seen["in_use"] == "last good"
    assert len(seen["problems"]) == 3
    assert "in use: last good" in broken.command("plan", "--run-dir", str(broken.run)).stdout


def test_a_file_that_breaks_between_two_starts_and_is_repaired(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    node.configure(7)
    daemon.hang_up()
    became(kubelet, RESOURCE, 14, 20)
    admit(kubelet, "held")
    daemon.end()
    node.write(BAD)
    process = node.start()
    # What drained under the first one goes on draining, and is used again where it is needed.
    became(kubelet, RESOURCE, 14, 20)
    assert process.ask("reload")["result"] == "refused"
    node.configure(9)
    assert process.ask("reload")["result"] == "applied"
    became(kubelet, RESOURCE, 18, 20)
    seen = process.view()["configuration"]
    assert (seen["in_use"], seen["problems"]) == ("file", [])
    assert len(kubelet.registrations) == 2
    process.status(
        lambda status: (
            status == f"{RESOURCE}: registered, 1 held, 17 free on 2 GPUs (18 allocatable)"
        )
    )


def test_strict_ends_it(broken: Node) -> None:
    said = refused(broken.start("--strict"))
    for place in PLACES:
        assert f"{broken.config}{place}" in said


def test_an_invalid_last_good_configuration(broken: Node) -> None:
    kept = broken.state / "last-good.toml"
    kept.write_bytes(sealed(b"garbage"))
    refused(broken.start())
    kept.unlink()
    kept.mkdir()
    refused(broken.start())


def test_what_it_keeps_is_for_its_owner_only(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    node.configure(3)
    daemon.ask("reload")
    text = node.config.read_bytes()
    node.saved("last-good.toml", text.__eq__)
    files = list(node.state.iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(node.state.stat().st_mode) == 0o700
    assert stat.S_IMODE(node.control.stat().st_mode) == 0o660
    (endpoint,) = node.endpoints()
    assert stat.S_IMODE((node.plugin_dir / endpoint).stat().st_mode) & 0o077 == 0
    assert kubelet.registered(RESOURCE)


def test_an_unwritable_state_directory_loses_only_the_state(
    node: Node, kubelet: StandInKubelet
) -> None:
    node.state.write_text("not a folder")
    process = node.start()
    became(kubelet, RESOURCE, 20, 20)
    process.said("The state is not saved")
    node.configure(5)
    assert process.ask("reload")["result"] == "applied"
    became(kubelet, RESOURCE, 10, 20)
    assert kubelet.next_registration(WITHIN).resource == RESOURCE


def test_fewer_shares_drain_over_a_kill_too(
    node: Node, daemon: Process, kubelet: StandInKubelet
) -> None:
    """The kubelet's checkpoint does not name what drains: sgpud has to know it by itself."""
    node.configure(3)
    daemon.ask("reload")
    became(kubelet, RESOURCE, 6, 20)
    node.saved("listing.json", lambda text: b'"draining": [[' in text)
    daemon.end(signal.SIGKILL)
    kubelet.skip()
    node.start()
    assert kubelet.next_devices(RESOURCE, WITHIN).devices.keys() == shares(10, 10)
    became(kubelet, RESOURCE, 6, 20)


def test_a_state_directory_of_pipes_stops_nothing(node: Node, kubelet: StandInKubelet) -> None:
    node.state.mkdir()
    names = ("last-good.toml", "gpus.json", "listing.json")
    for name in names:
        os.mkfifo(node.state / name)
    daemon = node.start()
    became(kubelet, RESOURCE, 20, 20)
    assert daemon.end() < WITHIN
    assert all((node.state / name).is_file() for name in names)


def test_an_attackers_state_directory_is_named_and_not_used(
    node: Node, kubelet: StandInKubelet
) -> None:
    node.state.mkdir()
    (node.state / "last-good.toml").write_bytes(sealed(node.document(7).encode()))
    node.state.chmod(0o777)
    node.write(BAD)
    refused(node.start())
    node.configure()
    daemon = node.start()
    became(kubelet, RESOURCE, 20, 20)
    daemon.status(lambda status: f"other users can write {node.state}" in status)
    assert f"other users can write {node.state}" in daemon.view()["unsaved"]
    assert [each.name for each in node.state.iterdir()] == ["last-good.toml"]
