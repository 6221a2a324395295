"""A holder tracker, and what a test does to it."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sgpud.core.planning.holdings import CheckpointState, NamedPod
from sgpud.kubelet.holders import (
    HINTED,
    WHILE_HELD,
    HoldersObserver,
    HolderTracker,
)
from tests.core.values import POOL, ids, uuid

GPU0 = uuid(0)


@define
class Lists:
    """A podresources service that the test answers for."""

    reachable: bool = True
    asked: list[Deferred[tuple[NamedPod, ...]]] = field(factory=list)
    ended: int = 0

    def held(self) -> Deferred[tuple[NamedPod, ...]]:
        question: Deferred[tuple[NamedPod, ...]] = Deferred(self._cancelled)
        self.asked.append(question)
        return question

    def answer(self, *held: str) -> None:
        self.asked[-1].callback((NamedPod("default", "pod", frozenset(held)),))

    def _cancelled(self, _: object) -> None:
        self.ended += 1


class HoldersCase(SynchronousTestCase):
    """A tracker with a file, a clock and a kubelet that the test moves."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "kubelet_internal_checkpoint"
        self.clock = Clock()
        self.lists = Lists()
        self.learned: list[CheckpointState] = []
        self.resends = 0
        self.waiting = False
        self.unconfirmed = False
        self.holders = HolderTracker(
            self.file,
            self.clock,
            self.lists,
            HoldersObserver(
                self.learned.append, lambda: self.waiting, self.resend, lambda: self.unconfirmed
            ),
        )
        self.addCleanup(self.holders.stop)

    def resend(self) -> None:
        self.resends += 1

    def record(self, *held: str) -> None:
        """Have the kubelet write that a container holds these."""
        self.held = held
        entry = {
            "PodUID": "uid",
            "ContainerName": "main",
            "ResourceName": POOL,
            "DeviceIDs": {"-1": held},
        }
        known = {"PodDeviceEntries": [entry], "RegisteredDevices": {POOL: ids(0, 8)}}
        self.file.write_text(json.dumps({"Data": known}))

    def start(self, *held: str) -> None:
        self.record(*held)
        self.holders.start()

    def seconds(self, count: float) -> None:
        """Let time pass as the reactor does: a little at a time."""
        self.clock.pump([0.5] * round(count / 0.5))

    def ask(self, *answer: str) -> None:
        """One refresh, answered with these ids; after that for the name of a new pod, if any."""
        self.waiting = True
        self.clock.advance(HINTED)
        if self.lists.asked and not self.lists.asked[-1].called:
            self.lists.answer(*self.held)
        before = len(self.lists.asked)
        self.seconds(WHILE_HELD)
        assert len(self.lists.asked) == before + 1
        self.lists.answer(*answer)
