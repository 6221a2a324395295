"""The daemon's side of a switch: what is held back, for how long, and when it may restart."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock

from sgpud.config.values import KubeletApi
from sgpud.core.planning.holdings import CheckpointState, Holder
from sgpud.core.planning.node import Node, Switching
from sgpud.core.planning.plan import Plan
from sgpud.node.api_switch import HOLD_FOR, ApiSwitch, SwitchError
from sgpud.node.served_api import ServedApi
from sgpud.node.store import StateDirectory


class Facts:
    """A reconciler that only remembers."""

    def __init__(self) -> None:
        self.node = Node()
        self.plan: Plan | None = None

    def update(self, **facts: Any) -> None:
        """Set facts."""
        self.node = evolve(self.node, **facts)


class World:
    """A switch with what it uses."""

    def __init__(self, tmp_path: Any, api: KubeletApi) -> None:
        self.clock, self.facts = Clock(), Facts()
        self.restarts: list[str] = []
        store = StateDirectory(tmp_path / "state", self.clock)
        self.served = ServedApi(store, lambda _: "")
        self.served.choose(api, force=False)
        self.store = store
        self.switch = ApiSwitch(
            self.clock,
            self.facts,
            self.served,
            self.restarts.append,
        )


def test_what_is_held_back_is_given_again_after_a_silence(tmp_path: Any) -> None:
    world = World(tmp_path, KubeletApi.DEVICE_PLUGIN)
    world.switch.step("free")
    for _ in range(3):
        world.clock.advance(HOLD_FOR - 1)
        assert world.switch.step("free")["switching"] == "free"
    world.clock.advance(HOLD_FOR + 1)
    assert world.facts.node.switching is Switching.NO
    world.switch.step("all")
    world.switch.step("none")
    assert world.facts.node.switching is Switching.NO
    assert not world.clock.getDelayedCalls()


def test_a_device_plugin_restarts_only_when_it_shows_nothing(tmp_path: Any) -> None:
    world = World(tmp_path, KubeletApi.DEVICE_PLUGIN)
    for step in ("none", "free"):
        world.switch.step(step)
        with pytest.raises(SwitchError):
            world.switch.step("restart")
    world.switch.step("all")
    world.switch.step("restart")
    assert world.restarts == ["Switching [kubelet] api to dra"]
    assert world.store.read("api") == b"dra"


def test_a_driver_restarts_only_without_claims(tmp_path: Any) -> None:
    world = World(tmp_path, KubeletApi.DRA)
    holder = Holder("uid", "request", "r", {}, {}, {}, 0, "prod", "train", claim=True)
    world.facts.node = Node(checkpoint=CheckpointState(holders=(holder,)))
    assert world.switch.step("free")["claims"] == ["prod/train"]
    with pytest.raises(SwitchError):
        world.switch.step("restart")
    world.facts.node = evolve(world.facts.node, checkpoint=CheckpointState())
    world.switch.step("restart")
    assert world.restarts


def test_an_unknown_step_is_refused(tmp_path: Any) -> None:
    with pytest.raises(SwitchError, match="no such step: fly"):
        World(tmp_path, KubeletApi.DRA).switch.step("fly")
