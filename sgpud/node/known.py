"""What is known of the GPUs, kept over restarts and boots in the state directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from attrs import evolve
from twisted.logger import Logger

from sgpud.bridge import Clock
from sgpud.core.health_values import Health
from sgpud.core.healths import booted, last_known, resumed
from sgpud.core.node import Node
from sgpud.node.known_file import Saved, StateError, dumped, loaded
from sgpud.node.store import Store

GPUS = "gpus.json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Keeps(Protocol):
    """The keeper."""

    node: Node

    def change(self, step: Any) -> None:
        """Take in a fact that depends on what is known already."""


class Known:
    """Remembers GPUs and healths: read at start and when serving begins, written from then on."""

    _log = Logger()

    def __init__(
        self,
        store: Store,
        keeper: Keeps,
        clock: Clock,
        *,
        simulated: bool,
        boot_id: Path = BOOT_ID,
    ) -> None:
        """GPUs of another kind than `simulated` are not taken over."""
        self._store = store
        self._keeper = keeper
        self._clock = clock
        self._boot = _read(boot_id)
        self._simulated = simulated
        self._serves = False
        self._written: bytes | None = None
        self._looked: object = None

    def start(self) -> None:
        """Take over what is known, GPUs included where the configuration trusts them."""
        self._resume()

    def take_over(self) -> None:
        """This process serves now: take over what the one before it has written since, and write.

        Two must not write the state directory.
        """
        self._serves = True
        self._resume()
        self.save(self._keeper.node)

    def save(self, node: Node) -> None:
        """Write what is known where it is another than what was written."""
        looked = (node.gpus, node.healths, node.driver)
        if not self._serves or node.gpus is None or looked == self._looked:
            return
        self._looked = looked
        saved = Saved(self._boot, self._simulated, node.driver, node.gpus, node.healths)
        content = dumped(saved)
        if content != self._written and self._store.write(GPUS, content):
            self._written = content

    def _resume(self) -> None:
        content = self._store.read(GPUS)
        if content is None:
            return
        try:
            saved = loaded(content)
        except StateError as problem:
            aside = self._store.set_aside(GPUS) if self._serves else None
            self._log.warn(
                "{path} cannot be used: {problem}. Nothing is known of the GPUs from before{aside}",
                path=str(self._store.path(GPUS)),
                problem=str(problem),
                aside=f"; the file is now {aside}" if aside else "",
            )
            return
        if saved.simulated is self._simulated:
            self._keeper.change(lambda node: self._resumed(node, saved))

    def _resumed(self, node: Node, saved: Saved) -> Node:
        now = self._clock.seconds()
        healths = {uuid: self._anew(one, node, now) for uuid, one in saved.healths.items()}
        if saved.boot and self._boot and saved.boot != self._boot:
            healths = booted(healths, node, now)
            self._log.info("The node has booted since the GPUs were known last")
        return resumed(last_known(node, saved.gpus, saved.driver, now), healths)

    def _anew(self, health: Health, node: Node, now: float) -> Health:
        """A health of another process: its times begin again."""
        hold = node.policy.hold_down * health.stretch if health.cause else 0.0
        return evolve(health, since=now, hold_until=now + hold)


def _read(path: Path) -> str:
    """What names this boot of the node; empty where the kernel does not tell."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
