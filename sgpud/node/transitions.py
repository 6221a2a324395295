"""Says how the healths of the GPUs change, and what a person should do."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.logger import Logger, LogLevel

from sgpud.core.causes import GONE, advice
from sgpud.core.health_values import Health, Phase
from sgpud.core.node import Node

_LEVELS = {
    Phase.HEALTHY: LogLevel.info,
    Phase.PROBATION: LogLevel.warn,
    Phase.SUSPECT: LogLevel.warn,
    Phase.UNHEALTHY: LogLevel.error,
}
_EFFECTS = {
    Phase.HEALTHY: "its shares are given out",
    Phase.PROBATION: "held shares stay, no other is given out until it has proved itself",
    Phase.SUSPECT: "held shares stay, no other is given out until a probe has answered",
    Phase.UNHEALTHY: "all its shares are Unhealthy, held ones are kept",
}
_WELL = Health()


class Transitions:
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
        if cause == GONE and health.phase is Phase.UNHEALTHY:
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
