"""`sgpud dra switch`: the order of its steps, what it waits for, and how it is called off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from sgpud.cli.dra.switch import BACK_WITHIN, Switch, SwitchingError

NAME = "deepomatic.com/shared-gpu"


class World:
    """A daemon, a node at the API server and a clock; the kubelet reports every ten seconds."""

    def __init__(self, serves: str = "device-plugin", held: int = 3) -> None:
        self.serves, self.held = serves, held
        self.listed = 200
        """What the daemon lists Healthy."""
        self.shown = 200
        self.now = 0.0
        self.claims: list[str] = []
        self.refusal = ""
        self.comes_back = True
        self.steps: list[str] = []
        self.patched: list[float] = []
        self.said: list[str] = []
        self.at: dict[float, Callable[[], None]] = {}

    def step(self, word: str) -> Mapping[str, Any]:
        """As the daemon does it."""
        if self.steps[-1:] != [word]:
            self.steps.append(word)
        self.listed = {"free": self.held, "all": 0, "none": 200}.get(word, self.listed)
        if word == "restart":
            # Never both: the scheduler sees nothing of the device plugin any more.
            assert self.serves == "dra" or (self.shown, self.listed) == (0, 0)
            assert not self.claims
            self.serves = "dra" if self.serves == "device-plugin" else "device-plugin"
        return {"serves": self.serves, "held": {NAME: self.held}, "claims": list(self.claims)}

    def serving(self) -> tuple[str, str]:
        """As the command finds it."""
        return (self.serves, "") if self.comes_back else ("", "nobody answers")

    def allocatable(self) -> Mapping[str, int]:
        """What the node shows."""
        return {NAME: self.shown, "cpu": 8}

    def show_none(self, resources: Sequence[str]) -> str:
        """Patch it."""
        assert list(resources) == [NAME]
        if not self.refusal:
            self.shown = 0
            self.patched.append(self.now)
        return self.refusal

    def pause(self, seconds: float) -> None:
        """Let time pass; the kubelet reports what is listed."""
        before, self.now = self.now, self.now + seconds
        if before // 10 != self.now // 10:
            self.shown = self.listed
        for when in [when for when in self.at if when <= self.now]:
            self.at.pop(when)()

    def switch(self, target: str) -> None:
        """Run the command."""
        Switch(self, self, lambda: self.now, self.pause, self.said.append).run(target)


def test_nothing_is_given_then_nothing_is_shown_then_it_restarts() -> None:
    world = World()
    world.switch("dra")
    assert world.steps == ["look", "free", "all", "restart"]
    assert world.serves == "dra"
    assert world.patched == [0.0]
    assert world.said[0] == (
        "Waiting until the kubelet reports 3 shares (those that pods hold), for one period of its"
        " status"
    )
    assert world.said[-2:] == ["Waiting for sgpud to restart", "This node serves dra."]


def test_without_holders_one_step_is_enough() -> None:
    world = World(held=0)
    world.switch("dra")
    assert world.now < 15


def test_a_report_of_before_is_patched_again_and_waited_for() -> None:
    world = World()

    def old_report() -> None:
        world.shown = 200

    world.at[5.0] = old_report
    world.switch("dra")
    assert len(world.patched) == 2
    assert any("the node shows 200 of deepomatic.com/shared-gpu" in line for line in world.said)


def test_without_the_right_to_patch_it_says_what_can_happen() -> None:
    world = World()
    world.refusal = "403: forbidden"
    world.switch("dra")
    assert world.patched == []
    assert "cannot be changed (403: forbidden): pods that are created in the next" in world.said[0]
    assert world.serves == "dra"


@pytest.mark.parametrize("when", [0.2, 3.0, 15.0])
def test_it_can_be_called_off_at_any_moment(when: float) -> None:
    world = World()

    def interrupt() -> None:
        raise KeyboardInterrupt

    world.at[when] = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.switch("dra")
    assert world.steps[-1] == "none"
    assert (world.serves, world.listed) == ("device-plugin", 200)
    assert world.said[-1] == "Cancelled: this node serves as before."


def test_an_api_server_that_is_away_calls_it_off() -> None:
    world = World()

    def away() -> Mapping[str, int]:
        raise SwitchingError("cannot read Node node-1: no answer")

    world.at[5.0] = lambda: setattr(world, "allocatable", away)
    with pytest.raises(SwitchingError):
        world.switch("dra")
    assert (world.serves, world.listed) == ("device-plugin", 200)


def test_back_waits_for_the_claims() -> None:
    world = World("dra")
    world.claims = ["prod/train"]
    world.at[30.0] = world.claims.clear
    # One that was allocated before the GPUs had their taints is prepared late.
    world.at[35.0] = lambda: world.claims.append("prod/late")
    world.at[40.0] = world.claims.clear
    world.switch("device-plugin")
    assert world.steps == ["look", "free", "restart"]
    assert world.now >= 52
    assert world.said[0] == "Waiting for 1 claim to end: prod/train"


def test_what_is_served_already_is_left_alone() -> None:
    world = World("dra")
    world.switch("dra")
    assert world.steps == ["look"]
    assert world.said == ["This node already serves dra."]


def test_a_daemon_that_does_not_come_back_is_named() -> None:
    world = World(held=0)
    world.comes_back = False
    with pytest.raises(SwitchingError, match="does not serve dra yet"):
        world.switch("dra")
    assert world.now >= BACK_WITHIN
    assert "none" not in world.steps
