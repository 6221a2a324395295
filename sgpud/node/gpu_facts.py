"""Records what is observed of GPUs and what the operator orders, and logs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from twisted.logger import Logger

from sgpud.bridge import Clock
from sgpud.core.gpu.gpu import Gpu, UnreadableGpu
from sgpud.core.gpu.observations import EventKind, GpuEvent, Sample, Usage
from sgpud.core.health.causes import of_event
from sgpud.core.health.node_health import (
    UnknownGpuError,
    cordoned,
    find,
    gpus_seen,
    healed,
    health_of,
    heard,
    probe_failed,
    sampled,
    why_unchanged,
)
from sgpud.core.limits.node_overuse import used
from sgpud.core.planning.node import Node, measured
from sgpud.core.text import several
from sgpud.node.reconciler import NodeUpdates
from sgpud.node.transition_log import HealthTransitionLog
from sgpud.node.usage_history import UsageHistory

LOG_AGAIN = 60.0
"""Seconds during which the same XID of the same GPU is logged once: XIDs come in bursts."""
MOST_LOGGED = 4096
"""Pairs of GPU and XID whose time of logging is remembered."""
_DRIVER_GONE = frozenset({"no-driver", "version-mismatch"})
"""Faults that mean: the kernel module is no longer loaded."""


class Fault(Protocol):
    """Why no GPU can be read; its text is for humans."""

    @property
    def kind(self) -> Enum:
        """The kind of fault."""


class GpuFacts:
    """Passes observations of GPUs, and the operator's commands, to the reconciler."""

    _log = Logger()

    def __init__(
        self,
        reconciler: NodeUpdates,
        clock: Clock,
        keep: Callable[[Node], None],
        count: Callable[[str, int, int], None],
        changed: Callable[[], None],
    ) -> None:
        """`keep` saves the state of the GPUs; `count` gets GPU, XID and how many of them.

        `changed` is called when GPUs were found or lost, and when a health has changed.
        """
        self._reconciler = reconciler
        self._clock = clock
        self._keep = keep
        self._count = count
        self._changed = changed
        self._logged: dict[tuple[str, int], float] = {}
        self._transitions = HealthTransitionLog()
        self.history = UsageHistory(clock)
        """What was measured in the last hour."""

    def reconciled(self, node: Node) -> None:
        """The node was reconciled: log how healths have changed, and save them."""
        if self._transitions.look(node):
            self._changed()
        self._keep(node)

    # Observations. -------------------------------------------------------------------------------

    def inventory(self, gpus: Sequence[Gpu], driver: str) -> None:
        """These GPUs are present and can be read."""
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

    def unreadable(self, gpus: tuple[UnreadableGpu, ...]) -> None:
        """These GPUs are counted by NVML and cannot be shared."""
        before = self._reconciler.node.unreadable
        if gpus == before:
            return
        for gpu in gpus:
            if gpu not in before:
                self._log.error(
                    "{gpu} cannot be shared: {reason}",
                    gpu=gpu.named,
                    reason=gpu.reason,
                    pci=gpu.pci,
                )
        self._reconciler.update(unreadable=gpus)
        self._changed()

    def fault(self, why: Fault) -> None:
        """No GPU can be read: what is known stays, free shares are withheld."""
        self._log.error("Cannot read GPUs: {problem}", problem=str(why))
        gone = why.kind.value in _DRIVER_GONE
        self._reconciler.change(lambda node: probe_failed(node, str(why), driver_gone=gone))
        self._changed()

    def error(self, gpu: str, why: str) -> None:
        """One GPU cannot be read. With a UUID it is an event as well; else `gpu` is an index."""
        if gpu.isdigit():
            for uuid in find(self._reconciler.node, gpu):
                self.event(GpuEvent(uuid, EventKind.ERROR, detail=why))

    def event(self, event: GpuEvent) -> None:
        """A GPU reported an event."""
        if event.kind is EventKind.XID:
            self._note_xid(event)
        now = self._clock.seconds()
        self._reconciler.change(lambda node: heard(node, event, now))

    def samples(self, samples: Sequence[Sample]) -> None:
        """Some GPUs were read."""
        self.history.samples(samples)
        now = self._clock.seconds()
        self._reconciler.change(lambda node: measured(sampled(node, samples, now), samples, now))

    def usage(self, usage: Usage) -> None:
        """The processes of every GPU were looked up."""
        self._reconciler.change(lambda node: used(node, usage))

    # Commands of the operator. -------------------------------------------------------------------

    def cordon(self, name: str) -> dict[str, str]:
        """Grant no more shares of a GPU. As for all three: its UUID, and why nothing changed.

        The reason is empty where something did. UnknownGpuError.
        """
        return self._apply(name, lambda node, uuid: cordoned(node, uuid, on=True), "cordon")

    def uncordon(self, name: str) -> dict[str, str]:
        """End a cordon."""
        return self._apply(name, lambda node, uuid: cordoned(node, uuid, on=False), "uncordon")

    def heal(self, name: str) -> dict[str, str]:
        """Accept that the operator has repaired a GPU."""
        now = self._clock.seconds()
        return self._apply(name, lambda node, uuid: healed(node, uuid, now), "heal")

    def _apply(self, name: str, step: Callable[[Node, str], Node], verb: str) -> dict[str, str]:
        before = self._reconciler.node
        found = {}
        for uuid in find(before, name):
            after = step(before, uuid)
            changed = any(
                health_of(before, each) != health for each, health in after.healths.items()
            )
            found[uuid] = "" if changed else why_unchanged(before, uuid, verb)
            if changed:
                self._reconciler.change(lambda node, uuid=uuid: step(node, uuid))  # type: ignore[misc]
        if not found:
            lost = next((gpu for gpu in before.unreadable if gpu.is_meant(name)), None)
            reason = f"{lost.named} cannot be shared: {lost.reason}" if lost else ""
            raise UnknownGpuError(name, [gpu.uuid for gpu in before.gpus or ()], reason)
        return found

    def _note_xid(self, event: GpuEvent) -> None:
        """Count an XID, and log it unless it was logged recently."""
        self._count(event.uuid, event.number, event.count)
        now, key = self._clock.seconds(), (event.uuid, event.number)
        if now - self._logged.get(key, -LOG_AGAIN) < LOG_AGAIN:
            return
        if len(self._logged) >= MOST_LOGGED:
            self._logged.clear()
        self._logged[key] = now
        node = self._reconciler.node
        compute = next((g.compute for g in node.gpus or () if g.physical == event.uuid), None)
        cause = of_event(event, compute, node.policy)
        where = "" if event.gi is None else f", GPU instance {event.gi}"
        if cause is None:
            self._log.warn(
                "GPU {gpu}{where}: unknown XID {xid}: ignored; classify it under [health]",
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
