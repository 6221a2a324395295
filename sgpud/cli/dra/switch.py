"""`sgpud dra switch`: from the device plugin to DRA or back, without a drain and step by step.

At no moment are pods offered the GPUs by both. To DRA: first nothing is given any more, until the
node's status shows no free share; then the shares that pods hold are Unhealthy, too, until it
shows none at all; then sgpud restarts. Back: no GPU is given any more, and the claims have to end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import field, frozen

from sgpud.core.errors import SgpudError
from sgpud.core.text import several

LOOK_EVERY = 0.5
"""Seconds between two looks."""
AHEAD = 0.4
"""Seconds from the patch of the node's number to the list that says the same: the scheduler has
seen it by then."""
TRIES = 5
"""Patches, at most, of a number that the kubelet writes back at once."""
PERIODS = 1.2
"""Periods of the kubelet's status for which the node has to show a number: the kubelet would have
corrected one that is not its own."""
BACK_WITHIN = 120.0
"""Seconds for the daemon to come back."""
DEVICE_PLUGIN, DRA = "device-plugin", "dra"


class SwitchingError(SgpudError):
    """A switch that was not made, and why."""


class SwitchingDaemon(Protocol):
    """The daemon of this node."""

    def step(self, word: str) -> Mapping[str, Any]:
        """Take a step of `ApiSwitch`; its answer."""

    def serving(self) -> tuple[str, str]:
        """(API, "") of a daemon that serves; ("", why) where there is none yet."""


class NodeNumbers(Protocol):
    """The node at the API server."""

    def allocatable(self) -> Mapping[str, int]:
        """How many of each resource it shows; SwitchingError."""

    def show_none(self, resources: Sequence[str]) -> str:
        """Have it show 0 of these; why that was refused, or empty."""


@frozen
class Switch:
    """One run of the command."""

    daemon: SwitchingDaemon
    node: NodeNumbers
    seconds: Callable[[], float]
    """Of a monotonic clock."""
    pause: Callable[[float], None]
    say: Callable[[str], None]
    period: float = 10.0
    """Seconds between two reports of the kubelet's status."""
    _said: list[str] = field(factory=list)

    def run(self, target: str) -> None:
        """Switch to `target`; whatever ends it before that calls it off."""
        found = self.daemon.step("look")
        if found["serves"] == target:
            self._tell(f"This node already serves {target}.")
            return
        try:
            if target == DRA:
                self._empty_the_number(found)
            else:
                self._wait_for_claims()
            self.daemon.step("restart")
        except BaseException:
            self.daemon.step("none")
            self._tell("Cancelled: this node serves as before.")
            raise
        self._wait_for_daemon(target)

    def _empty_the_number(self, found: Mapping[str, Any]) -> None:
        resources = list(found["held"])
        refused = self._show_none_ahead(resources)
        if refused:
            self._tell(
                f"The number in the node's status cannot be changed ({refused}): pods that are"
                f" created in the next {self.period:g} s can fail here."
            )
        held = self._settle("free", resources, patches=not refused)
        if any(held.values()):
            self._settle("all", resources, patches=False)
        else:
            self.daemon.step("all")

    def _show_none_ahead(self, resources: Sequence[str]) -> str:
        """Have the node show nothing before nothing is listed; why that was refused, or empty.

        A pod that is bound by the number of before finds no Healthy share, and fails.
        """
        refused = ""
        for _ in range(TRIES):
            shown = self.node.allocatable()
            over = [name for name in resources if shown.get(name, 0)]
            if not over:
                break
            # Again where the kubelet has written its own number meanwhile.
            refused = self.node.show_none(over)
            if refused:
                break
            self.pause(AHEAD)
        return refused

    def _settle(self, step: str, resources: Sequence[str], *, patches: bool) -> Mapping[str, int]:
        """Take the step, and wait until the node's status has shown it long enough."""
        since: float | None = None
        while True:
            held: Mapping[str, int] = self.daemon.step(step)["held"]
            most = dict.fromkeys(resources, 0) if step == "all" else held
            shown = self.node.allocatable()
            over = {name: shown[name] for name in resources if shown.get(name, 0) > most[name]}
            now = self.seconds()
            since = None if over else now if since is None else since
            if over and patches:
                self.node.show_none(list(over))
            if since is not None and now - since >= PERIODS * self.period:
                return held
            numbers = ", ".join(f"{shown.get(name, 0)} of {name}" for name in resources)
            enough = " or ".join(sorted({str(most[name]) for name in resources}))
            self._tell(
                f"Waiting until the kubelet reports {enough} shares"
                + (" (those that pods hold)" if step == "free" and any(held.values()) else "")
                + (f"; the node shows {numbers}" if over else ", for one period of its status")
            )
            self.pause(LOOK_EVERY)

    def _wait_for_claims(self) -> None:
        """Wait until there has been no claim for a while: one may have been allocated before."""
        since: float | None = None
        while True:
            claims = self.daemon.step("free")["claims"]
            now = self.seconds()
            since = None if claims else now if since is None else since
            if since is not None and now - since >= PERIODS * self.period:
                return
            self._tell(
                f"Waiting for {several(len(claims), 'claim')} to end: {', '.join(claims)}"
                if claims
                else "Waiting for claims that may have been allocated before"
            )
            self.pause(LOOK_EVERY)

    def _wait_for_daemon(self, target: str) -> None:
        end = self.seconds() + BACK_WITHIN
        self._tell("Waiting for sgpud to restart")
        while True:
            serves, why = self.daemon.serving()
            if serves == target:
                break
            if self.seconds() > end:
                raise SwitchingError(
                    f"sgpud does not serve {target} yet ({why or f'it serves {serves}'}): see its"
                    " log, and start it if nothing restarts it"
                )
            self.pause(LOOK_EVERY)
        self._tell(f"This node serves {target}.")

    def _tell(self, text: str) -> None:
        if self._said[-1:] != [text]:
            self._said.append(text)
            self.say(text)
