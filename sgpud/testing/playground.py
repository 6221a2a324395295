"""A node to look at: pods come, grow, use too much and go, and a GPU fails and recovers.

The daemon, the page and the commands are the real ones; GPUs, kubelet and pods are not. Each GPU
has a resource of its own, so that it is known beforehand which GPU a pod gets: what it uses there
is in the script of the fake GPUs, which is written before the daemon starts.
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from attrs import field, frozen

from sgpud.testing.kubelet.records import AdmissionError
from sgpud.testing.local_node import WITHIN, LocalNode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GIB = 2**30
TURN = 360.0
"""Seconds after which the failing GPU fails again: too seldom to count as flapping."""
TURNS = 3
"""Turns until the node is started again: a script has 1 000 events at most."""
_FIRST_PID = 1001
_GPUS = """\
proc = "{proc}"

[[gpu]]
product = "NVIDIA A100-SXM4-80GB"
memory = "80GiB"
reserved = "600MiB"

[[gpu]]
product = "NVIDIA L40S"
memory = "48GiB"
reserved = "500MiB"

[[gpu]]
product = "NVIDIA L4"
memory = "24GiB"
reserved = "400MiB"
"""
_CONFIG = """\
[sharing]
resource = "deepomatic.com/shared-a100"
share_memory = "1GiB"
full_guard = true

[[gpu]]
match = "NVIDIA L40S"
resource = "deepomatic.com/shared-l40s"

[[gpu]]
match = "NVIDIA L4"
resource = "deepomatic.com/shared-l4"
share_memory = "0"
duplication_factor = 10

[health]
hold_down = "10s"

[kubelet]
pod_resources = "{pod_resources}"

[http]
listen = "tcp:{port}:interface=127.0.0.1"
"""
RESOURCES = tuple(f"deepomatic.com/shared-{name}" for name in ("a100", "l40s", "l4"))
_MOST = (20, 12, 1)
"""Shares that a pod asks for at most, by GPU."""
_EVERY = (14.0, 17.0, 24.0)
"""Seconds between two pods, by GPU."""
_WORK = ("train", "chat", "embed", "search", "notebook", "render", "batch")
_TEAMS = ("vision", "speech", "ops")


@frozen
class Life:
    """One pod from its start to its end, in seconds since the daemon's start."""

    name: str
    namespace: str
    gpu: int
    shares: int
    pid: int
    begins: float
    ends: float
    memory: Sequence[tuple[float, float]]
    """What its process uses, and from when: (seconds, GiB)."""
    busy: int
    uid: str = field(init=False)

    @uid.default
    def _uid(self) -> str:
        return str(uuid5(NAMESPACE_URL, f"playground/{self.namespace}/{self.name}"))


def lives(seed: int, until: float) -> tuple[Life, ...]:
    """The pods of a node, by their start; the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    found: list[Life] = []
    for gpu, every in enumerate(_EVERY):
        at = 2.0 + gpu
        while at < until:
            found.append(_life(chance, gpu, len(found), at))
            at += every * chance.uniform(0.6, 1.4)
    return tuple(sorted(found, key=lambda life: life.begins))


def _life(chance: random.Random, gpu: int, number: int, at: float) -> Life:
    shares = chance.randint(1, _MOST[gpu])
    asked = shares if _MOST[gpu] > 1 else 2
    ends = at + chance.uniform(30.0, 150.0)
    # Every fifth pod uses more than it asked for.
    most = asked * (
        chance.uniform(1.2, 1.6) if chance.random() < 1 / 5 else chance.uniform(0.5, 0.98)
    )
    grown = (at + 1.0 + (ends - at) * part for part in (0.0, 0.15, 0.4))
    return Life(
        name=f"{chance.choice(_WORK)}-{number}",
        namespace=chance.choice(_TEAMS),
        gpu=gpu,
        shares=shares,
        pid=_FIRST_PID + number,
        begins=at,
        ends=ends,
        memory=tuple(zip(grown, (most * 0.2, most * 0.6, most), strict=True)),
        busy=chance.randint(1, 40),
    )


def fake_gpus(proc: Path, pods: Sequence[Life]) -> str:
    """The GPUs' file: what these pods use, and the last GPU's misfortunes."""
    last = len(RESOURCES) - 1
    misfortunes = [
        line
        for turn in range(TURNS)
        for line in (
            f'[[event]]\nat = "{turn * TURN + 60:.0f}s"\ngpu = {last}\nlost = true\n',
            f'[[event]]\nat = "{turn * TURN + 100:.0f}s"\ngpu = {last}\nback = true\n',
        )
    ]
    return "\n".join([_GPUS.format(proc=proc), *misfortunes, *(_used(pod) for pod in pods)])


def _used(pod: Life) -> str:
    what = f"gpu = {pod.gpu}\n"
    steps = [
        f'[[event]]\nat = "{at:.1f}s"\n{what}process = {pod.pid}\n'
        f'memory = "{gib * 1024:.0f}MiB"\nutilisation = {pod.busy}\n'
        for at, gib in pod.memory
    ]
    return "\n".join([*steps, f'[[event]]\nat = "{pod.ends:.1f}s"\n{what}ended = {pod.pid}\n'])


def write_proc(proc: Path, pods: Sequence[Life]) -> None:
    """What /proc would say of the pods' processes."""
    for pid, name, cgroup, mounts in (
        (1, "init", "/init.scope", ""),
        *((pod.pid, pod.name, *_container(pod)) for pod in pods),
    ):
        folder = proc / str(pid)
        folder.mkdir(parents=True)
        times = " ".join(["S", *map(str, range(4, 22)), "100", "0"])
        (folder / "stat").write_text(f"{pid} ({name.partition('-')[0]}) {times}\n")
        (folder / "cgroup").write_text(f"0::{cgroup}\n")
        (folder / "mountinfo").write_text(mounts)


def _container(pod: Life) -> tuple[str, str]:
    container = (pod.uid.replace("-", "") * 2)[:64]
    folder = f"/var/lib/kubelet/pods/{pod.uid}/containers/main/1a2b3c4d"
    return (
        f"/kubepods/burstable/pod{pod.uid}/{container}",
        f"31 22 8:1 {folder} /dev/termination-log rw - ext4 /dev/sda rw\n",
    )


def steps(pods: Sequence[Life]) -> Iterator[tuple[float, bool, Life]]:
    """When each pod comes (True) and goes (False), in order."""
    yield from sorted(
        (step for pod in pods for step in ((pod.begins, True, pod), (pod.ends, False, pod))),
        key=lambda step: step[0],
    )


class Playground:
    """Plays pods on a node."""

    def __init__(self, node: LocalNode, pods: Sequence[Life]) -> None:
        self._node = node
        self._pods = pods

    def play(self, until: float) -> None:
        """Let them come and go in real time, until so many seconds after now."""
        kubelet = self._node.kubelet
        for _ in RESOURCES:
            kubelet.next_registration(timeout=WITHIN)
        for resource in RESOURCES:
            kubelet.next_devices(resource, timeout=WITHIN)
        began = time.monotonic()
        there: set[str] = set()
        for at, comes, pod in steps(self._pods):
            if at > until or not self._wait(began + at):
                break
            if comes:
                there |= self._admit(pod)
            elif pod.uid in there:
                kubelet.terminate(pod.uid)
                there.remove(pod.uid)
                _say(f"{pod.namespace}/{pod.name} ended")

    def _admit(self, pod: Life) -> set[str]:
        wants = {RESOURCES[pod.gpu]: pod.shares}
        try:
            self._node.kubelet.admit(pod.uid, pod.namespace, pod.name, "main", wants)
        except AdmissionError as error:
            _say(f"{pod.namespace}/{pod.name} refused: {error.message}")
            return set()
        _say(f"{pod.namespace}/{pod.name} got {pod.shares} of {RESOURCES[pod.gpu]}")
        return {pod.uid}

    def _wait(self, until: float) -> bool:
        """Whether the daemon lives until then."""
        rest = until - time.monotonic()
        return not self._node.ended(rest) if rest > 0 else self._node.running


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """Play until Ctrl-C, or for `--seconds`."""
    parser = argparse.ArgumentParser(prog="make playground", description=__doc__)
    parser.add_argument(
        "--port", type=int, default=9449, help="port of the page, on 127.0.0.1 (9449)"
    )
    parser.add_argument("--seconds", type=float, help="end after this long; by default at Ctrl-C")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(words)
    try:
        for seed in range(asked.seed, asked.seed + (1 if asked.seconds else 1000)):
            until = min(asked.seconds or TURN * TURNS, TURN * TURNS)
            with tempfile.TemporaryDirectory(prefix="sgpud-playground-") as name:
                _node(Path(name), asked.port, seed, until)
    except KeyboardInterrupt:
        print()
    return 0


def _node(folder: Path, port: int, seed: int, until: float) -> None:
    pods = lives(seed, until)
    write_proc(folder / "proc", pods)
    config = _CONFIG.format(pod_resources=folder / "podresources.sock", port=port)
    with LocalNode(folder, config, fake_gpus(folder / "proc", pods)) as node:
        print(f"\nThe page:  http://127.0.0.1:{port}/\nIn another terminal:")
        for name in ("top", "status", "plan", "explain 2"):
            print(f"  {shlex.join(node.words(*name.split()))}")
        print("Ctrl-C ends it.\n", flush=True)
        Playground(node, pods).play(until)
        if not node.running:
            raise SystemExit(f"sgpud has ended: {node.log.read_text()}")
        node.stop()


if __name__ == "__main__":
    sys.exit(main())
