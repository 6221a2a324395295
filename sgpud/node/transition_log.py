"""Logs how the state of GPUs changes: health, cordons, full GPUs."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.logger import Logger, LogLevel

from sgpud.core.health.causes import GONE, advice
from sgpud.core.health.machine import Health, HealthPhase
from sgpud.core.planning.node import Node


class FullTransitionLog:
    """Compares each turn of the node with the one before."""

    _log = Logger()

    def __init__(self) -> None:
        """No GPU is full at first."""
        self._full: dict[str, str] = {}

    def look(self, node: Node) -> None:
        """Log what the full-GPU guard has decided anew."""
        full = {uuid: watch.reason for uuid, watch in node.watches.items() if watch.full}
        for uuid in full.keys() - self._full.keys():
            self._log.warn(
                "GPU {gpu} gets no more pods, {reason}: its free shares are withheld",
                gpu=uuid,
                reason=full[uuid],
            )
        for uuid in self._full.keys() - full.keys():
            self._log.info("GPU {gpu} gets pods again: it is no longer full", gpu=uuid)
        self._full = full


_LEVELS = {
    HealthPhase.HEALTHY: LogLevel.info,
    HealthPhase.PROBATION: LogLevel.warn,
    HealthPhase.SUSPECT: LogLevel.warn,
    HealthPhase.UNHEALTHY: LogLevel.error,
}
_EFFECTS = {
    HealthPhase.HEALTHY: "its shares are given out",
    HealthPhase.PROBATION: "held shares stay, no other is given out until it has proved itself",
    HealthPhase.SUSPECT: "held shares stay, no other is given out until a probe has answered",
    HealthPhase.UNHEALTHY: "all its shares are Unhealthy, held ones are kept",
}
_WELL = Health()


class HealthTransitionLog:
    """Looks at the node after each turn."""

    _log = Logger()

    def __init__(self) -> None:
        """Nothing is known to have been said."""
        self._said: Mapping[str, Health] = {}

    def look(self, node: Node) -> bool:
        """Say what is another than at the last look; whether anything was."""
        if node.healths is self._said:
            return False
        told = False
        physical = {gpu.uuid: gpu.physical for gpu in node.gpus or ()}
        for uuid, health in node.healths.items():
            before = self._said.get(uuid, _WELL)
            if health.cordoned is not before.cordoned:
                word = "cordoned" if health.cordoned else "no longer cordoned"
                self._log.warn("GPU {gpu} is {word}", gpu=uuid, word=word)
                told = True
            if (health.phase, health.cause) != (before.phase, before.cause):
                self._say(uuid, before, health, physical.get(uuid, uuid))
                told = True
        self._said = node.healths
        return told

    def _say(self, uuid: str, before: Health, health: Health, physical: str) -> None:
        cause = health.cause
        level, effect = _LEVELS[health.phase], _EFFECTS[health.phase]
        if cause == GONE and health.phase is HealthPhase.UNHEALTHY:
            level, effect = LogLevel.warn, "its free shares go, held ones are kept, Unhealthy"
        todo = f". What to do: {advice(cause, physical)}" if cause else ""
        self._log.emit(
            level,
            "GPU {gpu}: {was} -> {phase}{why}: {effect}{todo}",
            gpu=uuid,
            was=before.phase.value,
            phase=health.phase.value,
            why=f" ({cause})" if cause else "",
            effect=effect,
            todo=todo,
        )
