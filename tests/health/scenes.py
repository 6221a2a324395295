"""What can happen to a GPU, played to the real daemon by a script, beside the stand-in kubelet.

Two GPUs with ten shares each; a pod holds one share of the first, A. The scripts begin after
BEGIN seconds, so that the pod is there by then. Each scene is a test, and all run side by side.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Semaphore
from typing import TypeAlias

from attrs import frozen

from sgpud.node.store import unsealed
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import GPUS, RESOURCE, A, B, Node, of
from tests.daemon.process import Line, Process
from tests.daemon.record import tell
from tests.daemon.steps import admit

Scene: TypeAlias = Callable[[], None]
FEW_AT_A_TIME = Semaphore(2)
"""To start daemons: all at once they would be late for their own scripts."""
BEGIN = 5.0
WITHIN = 60.0
SETTINGS = """
[health]
hold_down = "2s"
trust_for = "3s"
"""
PARTS = f"""
[[gpu]]
uuid = "{A}"
product = "NVIDIA A100-SXM4-40GB"
memory = "40GiB"
mig = ["3g.20gb", "3g.20gb"]
"""


@frozen
class Stage:
    """One running daemon with its kubelet."""

    node: Node
    kubelet: StandInKubelet
    daemon: Process
    held: str = ""
    """The share that the pod holds."""

    def became(self, healthy: int, capacity: int = 20) -> None:
        """Wait until the node shows so many shares."""
        self.kubelet.wait_for(
            lambda k: (k.allocatable(RESOURCE), k.capacity(RESOURCE)) == (healthy, capacity), WITHIN
        )

    def held_is_healthy(self) -> bool:
        """How the pod's share is listed; an error if it is not."""
        return self.kubelet.devices(RESOURCE)[self.held].health == "Healthy"

    def healthy(self, uuid: str) -> int:
        """How many shares of a GPU are listed Healthy."""
        listed = self.kubelet.devices(RESOURCE)
        return sum(listed[share].health == "Healthy" for share in of(uuid, listed))

    def says(self, *words: str) -> str:
        """Run a command that asks this daemon."""
        done = self.node.command(*words, "--run-dir", str(self.node.run))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def again(self, gpus: str = GPUS) -> Stage:
        """End the daemon and start another one on the same node."""
        self.daemon.end()
        self.node.gpus.write_text(gpus)
        self.kubelet.skip()
        return Stage(self.node, self.kubelet, self.node.start(), self.held)


def script(*events: str, gpus: str = GPUS) -> str:
    """A file of fake GPUs: `SECONDS after BEGIN: what happens`, to A unless it says otherwise."""
    lines = [gpus]
    for event in events:
        at, _, what = event.partition(": ")
        place = "" if "gpu" in what or "driver" in what else "gpu = 0\n"
        happens = what.replace(", ", "\n")
        lines.append(f'[[event]]\nat = "{BEGIN + float(at):g}s"\n{place}{happens}\n')
    return "\n".join(lines)


@contextmanager
def playing(*events: str, gpus: str = GPUS, count: int = 20) -> Iterator[Stage]:
    """A node on which this happens, with a pod on A."""
    with Node() as node, node.kubelet() as kubelet:
        node.gpus.write_text(script(*events, gpus=gpus))
        node.configure(sharing='measure_every = "1s"', rest=SETTINGS)
        with FEW_AT_A_TIME:
            stage = Stage(node, kubelet, node.start())
            stage.became(count, count)
            (held,) = admit(kubelet, "pod").ids[RESOURCE]
        yield Stage(node, kubelet, stage.daemon, held)


def when(line: Line) -> float:
    """When a line was logged, on the clock of the kubelet's records."""
    wall = datetime.fromisoformat(str(line.fields["time"]).replace("Z", "+00:00")).timestamp()
    return wall - time.time() + time.monotonic()


def an_xid_that_needs_a_reboot() -> None:
    with playing("0: xid = 79") as stage:
        stage.became(10)
        assert stage.healthy(B) == 10
        assert not stage.held_is_healthy()
        line = stage.daemon.said("XID 79: the GPU has fallen off the bus (class")
        (listed,) = [
            one
            for one in stage.kubelet.lists(RESOURCE)
            if len(one.healthy) == 10 < len(one.devices)
        ]
        tell(f"from the XID to the list: {(listed.at - when(line)) * 1000:.0f} ms")
        stage.daemon.said("healthy -> unhealthy")
        stage.daemon.status(lambda status: f"{A} unhealthy (XID 79" in status)
        assert "reboot it" in stage.says("plan")
        # Neither the kubelet's restart nor ours makes it healthy.
        stage.kubelet.restart()
        stage.became(10)
        second = stage.again()
        second.became(10)
        assert not second.held_is_healthy()
        assert "is on probation" in second.says("heal", A)
        second.became(20)
        assert second.held_is_healthy()
        told = [line.message for line in second.daemon.log.items if f"GPU {A}: " in line.message]
        moves = [message.split(": ")[1].split(" (")[0] for message in told]
        assert moves == ["healthy -> unhealthy", "unhealthy -> probation", "probation -> healthy"]


def an_xid_of_an_application_and_one_that_nobody_knows() -> None:
    with playing("0: xid = 13", "0.1: xid = 4711", "0.2: xid = 94") as stage:
        stage.daemon.said("XID 13")
        stage.daemon.said("unknown XID 4711: ignored")
        stage.daemon.said("XID 94")
        assert stage.daemon.view()["counters"]["xids"] == [[A, 13, 1], [A, 94, 1], [A, 4711, 1]]
        assert {len(one.healthy) for one in stage.kubelet.lists(RESOURCE)} == {20}


def a_gpu_that_is_lost_and_comes_back() -> None:
    with playing("0: lost = true", "4: back = true") as stage:
        stage.became(10)
        assert not stage.held_is_healthy()
        stage.became(11)
        assert stage.held_is_healthy()
        assert stage.healthy(A) == 1
        stage.became(20)


def a_call_that_hangs_and_comes_back() -> None:
    with playing("0: hang = true", "4: back = true") as stage:
        stage.became(11)
        assert stage.held_is_healthy()
        stage.daemon.said("healthy -> suspect")
        # The others' facts go on, and so does placement.
        (share,) = admit(stage.kubelet, "other").ids[RESOURCE]
        assert share.startswith(B)
        stage.became(20)
        stage.daemon.said("suspect -> healthy")


def a_call_that_hangs_for_good() -> None:
    with playing("0: hang = true") as stage:
        stage.became(11)
        suspected = stage.daemon.said("healthy -> suspect")
        stage.kubelet.wait_for(lambda k: k.allocatable(RESOURCE) == 10, 40.0)
        sick = stage.daemon.said("suspect -> unhealthy")
        assert 29.5 < when(sick) - when(suspected) < 30 + WITHIN
        stage.daemon.end()


def a_double_bit_error() -> None:
    with playing("0: ecc = true") as stage:
        stage.became(10)
        line = stage.daemon.said("double-bit ECC error)").message
        steps = [
            line.index(step)
            for step in ("sgpud release", "--gpu-reset", "sgpud acquire", "sgpud heal")
        ]
        assert steps == sorted(steps)


def a_reset_that_the_driver_asks_for_and_sees() -> None:
    with playing("0: recovery = 1", "4: recovery = 0") as stage:
        stage.became(10)
        stage.daemon.said("recovery action 1: the driver asks for a GPU reset")
        stage.became(11)
        stage.became(20)


def a_gpu_to_be_drained() -> None:
    with playing("0: recovery = 4", "4: recovery = 0") as stage:
        stage.became(11)
        stage.daemon.said("-> probation (recovery action 4")
        assert stage.held_is_healthy()
        stage.became(20)


def a_gpu_that_is_pulled_and_plugged() -> None:
    with playing("0: unplug = true", "5: plug = true") as stage:
        stage.became(10)
        line = stage.daemon.said("1 GPU, driver fake")
        assert when(line) > when(stage.daemon.said("2 GPUs, driver fake"))
        assert not stage.held_is_healthy()
        stage.became(11)
        assert stage.held_is_healthy()
        stage.became(20)


def a_driver_that_is_unloaded_and_loaded() -> None:
    with playing('0: driver = "gone"', '3: driver = "back"') as stage:
        stage.became(1)
        assert stage.held_is_healthy()
        stage.daemon.status(lambda status: "no-driver" in status)
        stage.became(20)


def a_mig_instance_that_is_hit() -> None:
    with playing("0: xid = 95, gpu = 0, gi = 1", gpus=PARTS) as stage:
        stage.became(10)
        healths = {one["uuid"]: one["health"] for one in stage.daemon.view()["healths"]}
        assert sorted(healths.values()) == ["healthy", "healthy", "unhealthy"]
        assert healths[A] == "healthy"


def a_gpu_that_is_hit_with_its_mig_instances() -> None:
    with playing("0: xid = 79", gpus=PARTS) as stage:
        stage.became(0)
        assert not stage.held_is_healthy()


def a_cordon() -> None:
    with playing() as stage:
        assert "is cordoned" in stage.says("cordon", "0")
        stage.became(11)
        assert stage.held_is_healthy()
        (share,) = admit(stage.kubelet, "other").ids[RESOURCE]
        assert share.startswith(B)
        second = stage.again()
        second.became(11)
        assert "is uncordoned" in second.says("uncordon", A)
        second.became(20)
        refused = second.node.command("cordon", "7", "--run-dir", str(second.node.run))
        assert refused.returncode == 1
        assert A in refused.stderr


def a_burst() -> None:
    # The same thousand times, and a change at the end that shows that it is over.
    events = ["0: xid = 13"] * 500 + ["0: xid = 48"] * 498 + ["1: gpu = 1, xid = 79"]
    with playing(*events) as stage:
        stage.became(0)
        lists = stage.kubelet.lists(RESOURCE)
        assert len(lists) <= 6
        assert len(stage.daemon.log.items) < 60
        assert stage.daemon.view()["counters"]["xids"] == [[A, 13, 500], [A, 48, 498], [B, 79, 1]]


def the_last_known_gpus() -> None:
    with playing() as stage:
        gone = f'{GPUS}\n[[event]]\nat = "0s"\ndriver = "gone"\n'
        back = f'[[event]]\nat = "{BEGIN + 5:g}s"\ndriver = "back"\n'
        second = stage.again(gone + back)
        # Held shares are there although no GPU was read, and for no longer than they are trusted.
        second.became(1)
        assert second.held_is_healthy()
        second.became(0)
        second.became(20)


def a_state_file_that_is_damaged() -> None:
    with playing() as stage:
        path = stage.node.state / "gpus.json"
        assert json.loads(unsealed(path.read_bytes()) or b"")["gpus"][0]["uuid"] == A
        stage.daemon.end()
        path.write_text("nonsense")
        stage.kubelet.skip()
        second = Stage(stage.node, stage.kubelet, stage.node.start(), stage.held)
        second.became(20)
        second.daemon.said("gpus.json is corrupt")
        assert (path.parent / "gpus.json.corrupt").read_text() == "nonsense"


SCENES: tuple[Scene, ...] = (
    a_call_that_hangs_for_good,
    an_xid_that_needs_a_reboot,
    the_last_known_gpus,
    a_gpu_that_is_pulled_and_plugged,
    a_gpu_that_is_lost_and_comes_back,
    a_reset_that_the_driver_asks_for_and_sees,
    a_gpu_to_be_drained,
    a_driver_that_is_unloaded_and_loaded,
    a_call_that_hangs_and_comes_back,
    a_cordon,
    a_state_file_that_is_damaged,
    a_burst,
    a_mig_instance_that_is_hit,
    a_gpu_that_is_hit_with_its_mig_instances,
    a_double_bit_error,
    an_xid_of_an_application_and_one_that_nobody_knows,
)
"""The longest first."""
