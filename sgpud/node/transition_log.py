"""Logs changes of GPUs: health, cordons, full GPUs, and how they are handed over."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen
from twisted.logger import Logger, LogLevel

from sgpud.core.allocation.injection import InjectionChoice, NodeHost
from sgpud.core.gpu.attribution import Container
from sgpud.core.health.causes import GONE, advice
from sgpud.core.health.machine import Health, HealthPhase
from sgpud.core.limits.overuse import Excess
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan


class FullTransitionLog:
    """Logs GPUs that become full, or are no longer full."""

    _log = Logger()

    def __init__(self) -> None:
        """No GPU is full at first."""
        self._full: dict[str, str] = {}

    def look(self, node: Node) -> None:
        """Log the changes since the last call."""
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


@frozen
class BegunOveruse:
    """A container has begun to overuse memory."""

    gpu: str
    container: Container
    """Pod UID and name."""
    text: str
    """How, and what comes of it: the rest of a sentence about the container."""


class OveruseLog:
    """Logs containers that use more memory than they were granted, or no longer do."""

    _log = Logger()

    def __init__(self) -> None:
        """No container does at first."""
        self._known: dict[tuple[str, Container], Excess] = {}

    def look(self, node: Node) -> list[BegunOveruse]:
        """Log the changes since the last call; those that have begun."""
        known = {
            (uuid, name): one
            for uuid, state in node.overuse.items()
            for name, one in state.overusers.items()
        }
        begun = [key for key in known if key not in self._known]
        told = [
            BegunOveruse(uuid, name, f"{one.told(uuid, node.overuse[uuid].at)}: {one.verdict}")
            for uuid, name in begun
            for one in (known[uuid, name],)
        ]
        for each in told:
            one = known[each.gpu, each.container]
            self._log.warn(
                "{container} {told}", container=_container(each.container, one), told=each.text
            )
        for (uuid, name), one in self._known.items():
            if (uuid, name) not in known:
                self._log.info(
                    "{container} no longer uses more memory of GPU {gpu} than it was granted, or"
                    " the GPU has room again",
                    container=_container(name, one),
                    gpu=uuid,
                )
        self._known = known
        return told


def _container(name: Container, one: Excess) -> str:
    return f"{one.pod or name[0]}/{name[1]}"


class MethodLog:
    """Logs how GPUs are handed to containers, and why so, at first and whenever it changes."""

    _log = Logger()

    def __init__(self) -> None:
        """No method has been chosen at first."""
        self._logged: InjectionChoice | None = None
        self._caps_problem = ""

    def look(self, plan: Plan) -> None:
        """Log a change since the last call; nothing while the node has not been looked at."""
        if plan.host.caps_problem != self._caps_problem:
            self._caps_problem = plan.host.caps_problem
            if self._caps_problem:
                self._log.warn(
                    "Memory limits are given as variables, which a pod can override: {problem}",
                    problem=self._caps_problem,
                )
        choice, before = plan.chosen, self._logged
        if choice is None or choice == before:
            return
        if choice.unavailable and plan.host == NodeHost():
            return
        self._logged = choice
        if before is None or (before.method, before.why) != (choice.method, choice.why):
            self._log.info(
                "GPUs are handed to containers by {method}: {why}",
                method=choice.method.value,
                why=choice.why,
            )
        known = before.unavailable if before else {}
        for uuid, reason in choice.unavailable.items():
            if known.get(uuid) != reason:
                self._log.warn(
                    "GPU {gpu} cannot be handed over, its free shares are withheld: {reason}",
                    gpu=uuid,
                    reason=reason,
                )


_LEVELS = {
    HealthPhase.HEALTHY: LogLevel.info,
    HealthPhase.PROBATION: LogLevel.warn,
    HealthPhase.SUSPECT: LogLevel.warn,
    HealthPhase.UNHEALTHY: LogLevel.error,
}
_EFFECTS = {
    HealthPhase.HEALTHY: "its shares can be granted",
    HealthPhase.PROBATION: "held shares stay, no others are granted until its probation ends",
    HealthPhase.SUSPECT: "held shares stay, no others are granted until a probe passes",
    HealthPhase.UNHEALTHY: "all its shares are Unhealthy, held ones stay listed",
}
_HEALTHY = Health()


class HealthTransitionLog:
    """Logs GPUs whose health or cordon has changed."""

    _log = Logger()

    def __init__(self) -> None:
        """Every GPU is healthy at first."""
        self._logged: Mapping[str, Health] = {}

    def look(self, node: Node) -> bool:
        """Log the changes since the last call; whether there were any."""
        if node.healths is self._logged:
            return False
        changed = False
        physical = {gpu.uuid: gpu.physical for gpu in node.gpus or ()}
        for uuid, health in node.healths.items():
            before = self._logged.get(uuid, _HEALTHY)
            if health.cordoned is not before.cordoned:
                state = "cordoned" if health.cordoned else "no longer cordoned"
                self._log.warn("GPU {gpu} is {state}", gpu=uuid, state=state)
                changed = True
            if (health.phase, health.cause) != (before.phase, before.cause):
                self._log_change(uuid, before, health, physical.get(uuid, uuid))
                changed = True
        self._logged = node.healths
        return changed

    def _log_change(self, uuid: str, before: Health, health: Health, physical: str) -> None:
        cause = health.cause
        level, effect = _LEVELS[health.phase], _EFFECTS[health.phase]
        if cause == GONE and health.phase is HealthPhase.UNHEALTHY:
            level, effect = (
                LogLevel.warn,
                "its free shares are removed, held ones stay listed as Unhealthy",
            )
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
