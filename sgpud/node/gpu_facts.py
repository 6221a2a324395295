"""Takes in what is learned of the GPUs and what the operator says of them, and says it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from twisted.logger import Logger

from sgpud.bridge import Clock
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import EventKind, GpuEvent, Sample
from sgpud.core.health.causes import of_event
from sgpud.core.health.node_health import (
    UnknownGpuError,
    cordoned,
    find,
    gpus_seen,
    healed,
    heard,
    probe_failed,
    sampled,
)
from sgpud.core.planning.node import Node, measured
from sgpud.core.text import several
from sgpud.node.reconciler import NodeUpdates
from sgpud.node.transition_log import HealthTransitionLog

SAY_AGAIN = 60.0
"""Seconds in which the same XID of the same GPU is logged once: they come in bursts."""
MOST_SAID = 4096
"""GPUs and XIDs whose time of logging is remembered."""
_DRIVER_GONE = frozenset({"no-driver", "version-mismatch"})
"""Kinds of faults with which the kernel module that was loaded is not any more."""


class Fault(Protocol):
    """Why nothing can be read; its text is for people."""

    @property
    def kind(self) -> Enum:
        """What keeps the GPUs from being read."""


class GpuFacts:
    """Hears from where GPUs come from, and from the operator."""

    _log = Logger()

    def __init__(
        self,
        reconciler: NodeUpdates,
        clock: Clock,
        keep: Callable[[Node], None],
        count: Callable[[str, int, int], None],
        changed: Callable[[], None],
    ) -> None:
        """`keep` saves what is known; `count` gets GPU, XID and how many of them.

        `changed` is called after facts, and after healths have changed.
        """
        self._reconciler = reconciler
        self._clock = clock
        self._keep = keep
        self._count = count
        self._changed = changed
        self._said: dict[tuple[str, int], float] = {}
        self._transitions = HealthTransitionLog()

    def reconciled(self, node: Node) -> None:
        """The node has had a turn: say how healths have changed, and keep them."""
        if self._transitions.look(node):
            self._changed()
        self._keep(node)

    # What is observed. ---------------------------------------------------------------------------

    def inventory(self, gpus: Sequence[Gpu], driver: str) -> None:
        """These GPUs are there and can be read."""
        self._log.info(
            "{found}, driver {driver}: {names}",
            found=several(len(gpus), "GPU"),
            count=len(gpus),
            driver=driver,
            names=", ".join(f"{gpu.uuid} {gpu.product}" for gpu in gpus),
        )
        now = self._clock.seconds()
        self._reconciler.change(lambda node: gpus_seen(node, gpus, driver, now))
        self._changed()

    def fault(self, why: Fault) -> None:
        """Nothing fresh is to be had of any GPU: the last facts stay, free shares are withheld."""
        self._log.error("No fresh facts of the GPUs: {problem}", problem=str(why))
        gone = why.kind.value in _DRIVER_GONE
        self._reconciler.change(lambda node: probe_failed(node, str(why), driver_gone=gone))
        self._changed()

    def error(self, gpu: str, why: str) -> None:
        """One GPU cannot be read. With a UUID it comes as an event too; else `gpu` is an index."""
        if gpu.isdigit():
            for uuid in find(self._reconciler.node, gpu):
                self.event(GpuEvent(uuid, EventKind.ERROR, detail=why))

    def event(self, event: GpuEvent) -> None:
        """Something happened to a GPU."""
        if event.kind is EventKind.XID:
            self._note_xid(event)
        now = self._clock.seconds()
        self._reconciler.change(lambda node: heard(node, event, now))

    def samples(self, samples: Sequence[Sample]) -> None:
        """Some GPUs were read."""
        now = self._clock.seconds()
        self._reconciler.change(lambda node: measured(sampled(node, samples, now), samples, now))

    # What the operator says. ---------------------------------------------------------------------

    def cordon(self, name: str) -> tuple[str, ...]:
        """Give no more shares of a GPU out; its UUID. UnknownGpuError."""
        return self._said_of(name, lambda node, uuid: cordoned(node, uuid, on=True))

    def uncordon(self, name: str) -> tuple[str, ...]:
        """End a cordon; the GPU's UUID. UnknownGpuError."""
        return self._said_of(name, lambda node, uuid: cordoned(node, uuid, on=False))

    def heal(self, name: str) -> tuple[str, ...]:
        """Take the operator's word that a GPU is well; its UUID. UnknownGpuError."""
        now = self._clock.seconds()
        return self._said_of(name, lambda node, uuid: healed(node, uuid, now))

    def _said_of(self, name: str, step: Callable[[Node, str], Node]) -> tuple[str, ...]:
        node = self._reconciler.node
        found = find(node, name)
        if not found:
            raise UnknownGpuError(name, [gpu.uuid for gpu in node.gpus or ()])
        for uuid in found:
            self._reconciler.change(lambda node, uuid=uuid: step(node, uuid))  # type: ignore[misc]
        return found

    def _note_xid(self, event: GpuEvent) -> None:
        """Count an XID, and log it unless it was logged just now."""
        times = event.detail.removesuffix(" times")
        self._count(event.uuid, event.number, int(times) if times.isdigit() else 1)
        now, key = self._clock.seconds(), (event.uuid, event.number)
        if now - self._said.get(key, -SAY_AGAIN) < SAY_AGAIN:
            return
        if len(self._said) >= MOST_SAID:
            self._said.clear()
        self._said[key] = now
        node = self._reconciler.node
        compute = next((g.compute for g in node.gpus or () if g.physical == event.uuid), None)
        cause = of_event(event, compute, node.policy)
        where = "" if event.gi is None else f", GPU instance {event.gi}"
        if cause is None:
            self._log.warn(
                "GPU {gpu}{where}: XID {xid} is in no list, and changes nothing; [health] can say "
                "what it means",
                gpu=event.uuid,
                where=where,
                xid=event.number,
            )
        else:
            self._log.info(
                "GPU {gpu}{where}: {cause} (class {remedy})",
                gpu=event.uuid,
                where=where,
                cause=str(cause),
                remedy=cause.remedy.value,
                xid=event.number,
            )
