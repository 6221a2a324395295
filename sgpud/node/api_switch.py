"""What the daemon does for `sgpud dra switch`: it holds GPUs back, and restarts at the end.

The command says what comes next, and again and again what it is at: where it is silent for
HOLD_FOR, everything is given again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

from sgpud.bridge import Clock, Timer
from sgpud.config.values import KubeletApi
from sgpud.core.errors import SgpudError
from sgpud.core.planning.node import Node, Switching
from sgpud.core.planning.plan import Plan
from sgpud.node.served_api import ServedApi

HOLD_FOR = 30.0
"""Seconds for which GPUs are held back after the command was heard of."""
RESTART, LOOK = "restart", "look"


class SwitchError(SgpudError):
    """A step that cannot be taken now."""


class SwitchedNode(Protocol):
    """The part of the reconciler that is used."""

    node: Node
    plan: Plan | None

    def update(self, **facts: Any) -> None:
        """Set facts."""


class ApiSwitch:
    """Takes the steps that the command asks for."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        reconciler: SwitchedNode,
        served: ServedApi,
        restart: Callable[[str], None],
    ) -> None:
        """`restart` ends the process so that it is started again; it is given the reason."""
        self._reconciler = reconciler
        self._served = served
        self._restart = restart
        self._lease = Timer(clock)

    def step(self, word: str) -> dict[str, object]:
        """Hold back `none`, `free` or `all`; `restart` with the other API, or only `look`."""
        if word == RESTART:
            self._end()
        elif word in {one.value for one in Switching}:
            self._hold(Switching(word))
        elif word != LOOK:
            raise SwitchError(f"no such step: {word}")
        return {
            "serves": self._served.served.value,
            "switching": self._reconciler.node.switching.value,
            "held": self._held(),
            "claims": self._claims(),
        }

    def stop(self) -> None:
        """End it."""
        self._lease.cancel()

    def _hold(self, what: Switching) -> None:
        self._lease.cancel()
        if what is not Switching.NO:
            self._lease.set(HOLD_FOR, self._silent)
        if what is not self._reconciler.node.switching:
            self._log.info("Switching [kubelet] api: withholding {what}", what=what.value)
            self._reconciler.update(switching=what)

    def _silent(self) -> None:
        self._log.warn(
            "No sign of `sgpud dra switch` for {s:g} s: the switch is cancelled", s=HOLD_FOR
        )
        self._reconciler.update(switching=Switching.NO)

    def _end(self) -> None:
        switching, claims = self._reconciler.node.switching, self._claims()
        if self._served.served is KubeletApi.DEVICE_PLUGIN and switching is not Switching.ALL:
            raise SwitchError("the scheduler may still see shares of the device plugin")
        if self._served.served is KubeletApi.DRA and (switching is Switching.NO or claims):
            raise SwitchError("there may be claims of this node")
        self._served.switch()
        self._restart(f"Switching [kubelet] api to {self._served.other.value}")

    def _held(self) -> dict[str, int]:
        """How many shares containers hold, of each resource."""
        pools = self._reconciler.plan.pools if self._reconciler.plan else ()
        return {pool.resource: sum(group.given for group in pool.groups) for pool in pools}

    def _claims(self) -> list[str]:
        checkpoint = self._reconciler.node.checkpoint
        holders = checkpoint.holders if checkpoint else ()
        found = {f"{one.namespace}/{one.name or one.pod}" for one in holders if one.claim}
        return sorted(found)
