"""Pods that come and go while everything else happens, for as long as wanted: `make soak`.

Two sgpuds (one serves, one stands by), fake GPUs, the stand-in kubelet. A seed decides: pods
start and end, the configuration is reloaded, the kubelet restarts, daemons are killed, GPUs are
cordoned and fall off the bus. A checker of its own watches the promises.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import define, field

from sgpud.serve.control.client import ControlError
from sgpud.testing.kubelet.records import AdmissionError, KubeletRestarted, PluginHung
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.abuse.checker import Checker
from tests.daemon.node import Node
from tests.daemon.process import Process

MEMORY = "deepomatic.com/shared-gpu-memory"
PLACES = "deepomatic.com/shared-gpu"
GIB = 2**30
UUIDS = tuple(f"GPU-{letter * 8}-0000-4000-8000-00000000000{letter}" for letter in "abcd")
SIZES = (40, 40, 24, 24)
"""GiB of each GPU: the first two are shared by memory, the others in places."""
GPUS = "".join(
    f'[[gpu]]\nuuid = "{uuid}"\nproduct = "{"NVIDIA A100" if size == 40 else "NVIDIA L4"}"\n'
    f'memory = "{size}GiB"\n\n'
    for uuid, size in zip(UUIDS, SIZES, strict=True)
)
SHARE_SIZES = ("1GiB", "2GiB", "4GiB")
FACTORS = (4, 10, 30)
PACE = 0.15
"""Seconds between two things that happen."""
LOST_EVERY, LOST_FOR = 97, 41
"""Seconds: the last GPU falls off the bus, and comes back after a reset."""
STARTS_WITHIN = 30.0


@define
class Soak:
    """One run."""

    seconds: float
    rng: random.Random
    node: Node
    kubelet: StandInKubelet
    checker: Checker = field(
        factory=lambda: Checker({uuid: size * GIB for uuid, size in zip(UUIDS, SIZES, strict=True)})
    )
    counts: Counter[str] = field(factory=Counter)
    daemons: list[Process] = field(factory=list)
    peak_rss: int = 0
    peak_descriptors: int = 0
    _pods: list[str] = field(factory=list)
    _number: int = 0
    _seen: dict[str, float] = field(factory=dict)
    _cordons: set[str] = field(factory=set)
    _pause: threading.Event = field(factory=threading.Event)

    def run(self) -> None:
        """Let it all happen."""
        self.node.gpus.write_text(GPUS + self._script())
        self._configure()
        self.kubelet.start()
        self._start()
        self.kubelet.wait_for(lambda k: k.allocatable(MEMORY) and k.allocatable(PLACES), 60)
        self._start()
        actions: list[tuple[Callable[[], None], int]] = [
            (self._begin, 50),
            (self._end, 40),
            (self._reload, 5),
            (self._hang_up, 3),
            (self._restart_kubelet, 2),
            (self._kill, 2),
            (self._cordon, 3),
            (self._uncordon, 3),
        ]
        weighted = [action for action, weight in actions for _ in range(weight)]
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            self.rng.choice(weighted)()
            self._look()
            self._pause.wait(PACE)
        self._look()

    def report(self) -> str:
        """What happened, in lines."""
        lines = [f"{name:32} {count}" for name, count in sorted(self.counts.items())]
        lines += [
            f"{'lists looked at':32} {self.checker.lists}",
            f"{'peak RSS of a daemon, MiB':32} {self.peak_rss / 2**20:.1f}",
            f"{'peak descriptors of a daemon':32} {self.peak_descriptors}",
            f"{'violations':32} {len(self.checker.violations)}",
        ]
        return "\n".join([*lines, *self.checker.violations[:20]])

    # What happens. -------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._number += 1
        pod = f"pod-{self._number}"
        wants = (
            {MEMORY: self.rng.choice([1, 2, 3, 5, 8, 13])}
            if self.rng.random() < 0.6
            else {PLACES: self.rng.choice([1, 1, 1, 2])}
        )
        if self.rng.random() < 0.1:
            if not self._admit(pod, "init", wants, init=True):
                return
            self.checker.ended(pod)
        if self._admit(pod, "main", wants):
            self._pods.append(pod)

    def _admit(self, pod: str, name: str, wants: dict[str, int], *, init: bool = False) -> bool:
        try:
            container = self.kubelet.admit(pod, "soak", pod, name, wants, init=init, timeout=20)
        except AdmissionError as error:
            said = error.details.removeprefix("sgpud: ").split(":")[0] or "by the kubelet"
            self.counts[f"refused {said}"] += 1
            return False
        except KubeletRestarted:
            return False
        except PluginHung as error:
            self.checker.violations.append(f"a call hangs: {error}")
            return False
        self.counts["containers started"] += 1
        self.checker.admitted(pod, container, time.monotonic())
        return True

    def _end(self) -> None:
        if self._pods:
            pod = self._pods.pop(self.rng.randrange(len(self._pods)))
            self.kubelet.terminate(pod)
            self.checker.ended(pod)
            self.counts["pods ended"] += 1

    def _reload(self) -> None:
        self._configure()
        self._serving().send(signal.SIGHUP)
        self.counts["reloads"] += 1

    def _hang_up(self) -> None:
        for _ in range(20):
            self._serving().send(signal.SIGHUP)
        self.counts["SIGHUP bursts"] += 1

    def _restart_kubelet(self) -> None:
        self._look()
        self.kubelet.restart()
        self.counts["kubelet restarts"] += 1

    def _kill(self) -> None:
        how = self.rng.choice([signal.SIGKILL, signal.SIGTERM])
        ended = self.daemons.pop(0)
        ended.end(how)
        self.counts[f"{how.name} to a daemon"] += 1
        for line in ended.complaints:
            self.checker.violations.append(f"a daemon logged: {line}")
        self._start()
        # The one that stood by serves now; what it is told must reach it.
        self._cordons = {uuid for uuid in self._cordons if self._ask("cordon", uuid)}

    def _cordon(self) -> None:
        uuid = self.rng.choice(UUIDS)
        free = uuid not in self._cordons and len(self._cordons) < len(UUIDS) - 1
        if free and self._ask("cordon", uuid):
            self._cordons.add(uuid)
            self.checker.cordoned(uuid, time.monotonic())
            self.counts["cordons"] += 1

    def _uncordon(self) -> None:
        if self._cordons:
            uuid = self.rng.choice(sorted(self._cordons))
            if self._ask("uncordon", uuid):
                self._cordons.discard(uuid)
                self.checker.cordoned(uuid, None)

    # Looking and helping. ------------------------------------------------------------------------

    def _look(self) -> None:
        for name in (MEMORY, PLACES):
            for message in self.kubelet.lists(name):
                if message.at > self._seen.get(name, 0.0):
                    self._seen[name] = message.at
                    self.checker.listed(message)
        self.checker.violations += [f"panic: {panic}" for panic in self.kubelet.panics[:1]]
        for daemon in self.daemons:
            if not daemon.running:
                self.checker.violations.append("a daemon ended by itself")
                continue
            self.peak_rss = max(self.peak_rss, _rss(daemon.pid))
            self.peak_descriptors = max(self.peak_descriptors, len(daemon.descriptors()))

    def _ask(self, verb: str, gpu: str) -> bool:
        """Whether the daemon that serves did what it was asked; at a handover nobody may answer."""
        try:
            self._serving().ask(verb, gpu=gpu)
        except ControlError:
            return False
        return True

    def _serving(self) -> Process:
        return self.daemons[0]

    def _start(self) -> None:
        daemon = self.node.start()
        daemon.ready()
        self.daemons.append(daemon)

    def _configure(self) -> None:
        self.node.configure(
            self.rng.choice(FACTORS),
            PLACES,
            f'placement = "{self.rng.choice(["packed", "spread"])}"',
            f'[[gpu]]\nmatch = "NVIDIA A100"\nresource = "{MEMORY}"\n'
            f'share_memory = "{self.rng.choice(SHARE_SIZES)}"\n',
            level="warn",
        )

    def _script(self) -> str:
        """A GPU that falls off the bus now and then, and comes back."""
        events = []
        at = float(LOST_EVERY)
        while at < self.seconds:
            events.append(f'[[event]]\nat = "{at:.0f}s"\ngpu = 3\nlost = true\n')
            events.append(f'[[event]]\nat = "{at + LOST_FOR:.0f}s"\ngpu = 3\nback = true\n')
            at += LOST_EVERY
        return "\n".join(events)


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def soak(seconds: float, seed: int) -> Soak:
    """Run it; what happened."""
    with Node() as node, node.kubelet() as kubelet:
        made = Soak(seconds, random.Random(seed), node, kubelet)  # noqa: S311 - repeatable
        made.run()
        return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run for some time, print what happened; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    made = soak(arguments.seconds, arguments.seed)
    sys.stdout.write(f"{arguments.seconds:.0f} s, seed {arguments.seed}\n{made.report()}\n")
    return 1 if made.checker.violations else 0


if __name__ == "__main__":
    sys.exit(main())
