"""The plan's four rules, over random histories of one node and its kubelet.

The kubelet here is a true one: it chooses from lists that are up to 5 s old, records what it was
given a while after Allocate, frees what ended without a word, and writes its checkpoint late. The
file may also vanish, become unreadable, or lie; what is held in truth is then not known any more,
but what is believed keeps the rules all the same. A restart forgets everything but the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from sgpud.core.allocation.allocate import RefusalRule, RefusedError, allocate, index
from sgpud.core.allocation.preference import prefer
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import EventKind, GpuEvent, Sample
from sgpud.core.health.node_health import heard
from sgpud.core.planning.advance import LATE, next_turn
from sgpud.core.planning.holdings import CheckpointState, Grant, Holder
from sgpud.core.planning.listing import DRAIN_FOR, EMPTY_FOR
from sgpud.core.planning.node import Node, measured
from sgpud.core.planning.plan import Plan
from sgpud.core.sharing.rules import (
    Advertise,
    GpuRule,
    InjectionMethod,
    InjectionSettings,
    Multiple,
    Placement,
    ShareTerms,
    Sharing,
)
from sgpud.core.sharing.share_id import parse_share_id, share_id
from tests.core.health.watched import READ_WITHIN, SIZES, Pod, Watched, lies, listed, resources
from tests.core.values import GIB, OTHER, POOL, THIRD, gpu, uuid

SHORT = settings(max_examples=40, stateful_step_count=40)
LONG = settings(max_examples=150, stateful_step_count=50)
RECORDED_WITHIN = 9.75
"""Seconds from Allocate's answer until the kubelet has it in its books."""

factors = st.integers(1, 6)
gpus = st.sets(st.integers(0, 3)).map(lambda found: tuple(map(gpu, sorted(found))))
matches = st.sampled_from(["*", uuid(0), uuid(1), uuid(2)])
seconds = st.sampled_from([0.25, 1.0, 4.0, 9.0, 10.0, 29.75, 30.0, 31.0, 100.0])


def one_kind(config: Sharing, sizes: Mapping[str, int]) -> Sharing:
    """The configuration with shares of one size in each resource: no other passes the check."""
    default = evolve(config.default, share_memory=sizes[config.default.resource])
    rules = tuple(
        evolve(rule, share_memory=sizes[rule.resource or default.resource]) for rule in config.rules
    )
    return evolve(config, default=default, rules=rules)


loose = st.builds(
    Sharing,
    allow=st.lists(matches, min_size=1, max_size=2).map(tuple),
    deny=st.lists(st.sampled_from([uuid(0), uuid(3)]), max_size=1).map(tuple),
    default=st.builds(ShareTerms, resources, factors, SIZES),
    rules=st.lists(
        st.builds(GpuRule, matches, st.none() | resources, st.none() | factors, st.none() | SIZES),
        max_size=2,
    ).map(tuple),
    reserve_memory=st.sampled_from([0, 0, GIB, 40 * GIB]),
    advertise=st.sampled_from(Advertise),
    full_guard=st.booleans(),
    placement=st.sampled_from(Placement),
    multiple=st.sampled_from(Multiple),
    numa=st.booleans(),
    injection=st.just(InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)),
)
configurations = st.builds(
    one_kind, loose, st.fixed_dictionaries({POOL: SIZES, OTHER: SIZES, THIRD: SIZES})
)

FACTS = ["sharing", "gpus", "checkpoint"]


def held_of(found: Plan) -> set[tuple[str, int]]:
    """The shares that the plan counts as held."""
    return {(g.uuid, number) for pool in found.pools for g in pool.lists for number in g.held}


class FourRules(Watched):
    # Facts. ----------------------------------------------------------------------------------

    @rule(config=configurations, burst=st.booleans())
    def reload(self, config: Sharing, burst: bool) -> None:  # noqa: FBT001
        self.node = evolve(self.node, sharing=config)
        self.turn(burst)

    @rule(found=gpus, burst=st.booleans())
    def probe(self, found: tuple[Gpu, ...], burst: bool) -> None:  # noqa: FBT001
        self.node = evolve(self.node, gpus=found, healths={})
        self.turn(burst)

    @rule(number=st.integers(0, 3))
    def fail_a_gpu(self, number: int) -> None:
        self.node = heard(self.node, GpuEvent(uuid(number), EventKind.XID, 79), self.now)
        self.turn()

    @rule(problem=st.sampled_from(["", "released"]))
    def lose_the_probe(self, problem: str) -> None:
        self.node = evolve(self.node, probe_problem=problem)
        self.turn()

    @rule(used=st.dictionaries(st.integers(0, 3), st.sampled_from([0, 20, 39, 40])))
    def measure(self, used: dict[int, int]) -> None:
        """The full-GPU guard withholds by this, and placement looks at it."""
        samples = [Sample(uuid(number), size * GIB) for number, size in used.items()]
        self.node = measured(self.node, samples, self.now)
        self.turn()

    @rule(burst=st.booleans())
    def read(self, burst: bool) -> None:  # noqa: FBT001
        if self.readable:
            self.node = evolve(self.node, checkpoint=self.file or CheckpointState())
            self.read_by = None
        elif self.node.checkpoint is not None:
            self.node = evolve(
                self.node, checkpoint=evolve(self.node.checkpoint, problem="not JSON")
            )
        self.turn(burst)

    # Time. -----------------------------------------------------------------------------------

    @rule(duration=seconds)
    def pass_time(self, duration: float) -> None:
        end = self.now + duration
        while self.now < end:
            turn = next_turn(self.node, self.now, self.wall)
            recording = [pod.recorded_by for pod in self.pods if not pod.recorded]
            dues = [end, *recording, *([self.now + turn] if turn else [])]
            if self.read_by is not None and self.readable:
                dues.append(self.read_by)
            due = max(self.now, min(dues))
            self.wall += due - self.now
            self.now = due
            if any(at <= self.now for at in recording):
                self.record()
            if self.read_by is not None and self.readable and self.read_by <= self.now:
                self.read(burst=False)
            self.turn()

    @precondition(lambda self: all(pod.recorded for pod in self.pods))
    @rule(by=st.sampled_from([-100_000.0, -60.0, -10.0, -1.0, 5.0, 3600.0]))
    def set_the_clock(self, by: float) -> None:
        self.wall += by
        self.clock_went_back |= by < 0
        self.turn()

    # The kubelet. ----------------------------------------------------------------------------

    @precondition(lambda self: self.plan is not None)
    @rule(data=st.data(), size=st.integers(1, 3))
    def admit(self, data: st.DataObject, size: int) -> None:
        """Choose from a list that may be some seconds old; Allocate gives it all the same.

        But for what its GPU has no room for now: the kubelet gives the id of a pod that has ended
        before anybody else knows of it.
        """
        assert self.plan is not None
        views = [self.plan, *(s.plan for s in self.shown if self.now - s.until < LATE)]
        view = data.draw(st.sampled_from(views), "view")
        if not view.pools:
            return
        resource = data.draw(st.sampled_from([pool.resource for pool in view.pools]), "resource")
        taken = set().union(*(pod.ids for pod in self.pods))
        free = [
            share_id(gpu, number)
            for name, gpu, number in sorted(listed(view, healthy=True) - taken)
            if name == resource
        ]
        pool = self.plan.pool(resource)
        if len(free) < size:
            return
        assert pool is not None
        known = index(pool)
        chosen = prefer(self.plan, pool, known, free, (), size).ids
        try:
            granted = allocate(self.plan, pool, known, chosen)
        except RefusedError as refusal:
            rules = {RefusalRule.UNHEALTHY, RefusalRule.MULTIPLE}
            if any(share in held_of(self.plan) for share in map(parse_share_id, chosen)):
                rules |= {RefusalRule.ROOM, RefusalRule.WITHHELD}
            if pool.own is not None:
                rules |= {RefusalRule.ROOM}
            assert refusal.rule in rules  # noqa: PT017
            return
        terms = (granted.shares, granted.per_gpu, granted.sizes, granted.gpu)
        pod = Pod(resource, *terms, self.now + RECORDED_WITHIN)
        grant = Grant(
            resource, granted.shares, granted.per_gpu, self.wall, granted.sizes, granted.gpu
        )
        self.pods.append(pod)
        self.node = evolve(self.node, grants=(*self.node.grants, grant))
        self.turn(data.draw(st.booleans(), "burst"))

    @rule()
    def record(self) -> None:
        for pod in self.pods:
            pod.recorded = True
        self.write()

    @precondition(lambda self: self.pods)
    @rule(data=st.data())
    def end_a_pod(self, data: st.DataObject) -> None:
        """The kubelet knows at once, and writes nothing."""
        recorded = [pod for pod in self.pods if pod.recorded]
        if recorded:
            self.pods.remove(data.draw(st.sampled_from(recorded)))

    @rule()
    def write_the_checkpoint(self) -> None:
        self.write()

    # What nobody should do to the file. ------------------------------------------------------

    @rule()
    def vanish(self) -> None:
        self.file = None
        self.forget()

    @rule(holders=lies, registered=lies)
    def lie(self, holders: tuple[Holder, ...], registered: tuple[Holder, ...]) -> None:
        known = {
            (one.resource, gpu): numbers
            for one in registered
            for gpu, numbers in one.shares.items()
        }
        self.file = CheckpointState(holders, self.wall, known)
        self.forget()

    def forget(self) -> None:
        self.kept_healthy.clear()
        self.read_by = self.now + READ_WITHIN
        for pod in self.pods:
            pod.doubtful = True

    @rule(readable=st.booleans())
    def change_the_mode(self, readable: bool) -> None:  # noqa: FBT001
        self.readable = readable

    # Restarts. -------------------------------------------------------------------------------

    @precondition(lambda self: self.readable)
    @rule(config=configurations, found=gpus, order=st.permutations(FACTS))
    def restart(self, config: Sharing, found: tuple[Gpu, ...], order: list[str]) -> None:
        """The kubelet is quicker than our start: what it was given is in its file by then."""
        if self.plan is not None:
            self.record()
            self.kept_healthy = listed(self.plan, healthy=True)
        facts: dict[str, Any] = {
            "sharing": config,
            "gpus": found,
            "checkpoint": self.file or CheckpointState(),
        }
        self.node, self.plan, self.shown = Node(), None, []
        self.unhealthy_since, self.empty_since = {}, {}
        self.read_by = None
        for name in order:
            self.node = evolve(self.node, **{name: facts[name]})
            self.turn()
        # Of a resource that was configured by another process nothing says that it was ours: the
        # kubelet forgets it once nobody registers it.
        ours = {*config.resources, *(holder.resource for holder in facts["checkpoint"].holders)}
        assert {share for share in self.kept_healthy if share[0] in ours} <= listed(self.plan)
        self.kept_healthy = set()

    def teardown(self) -> None:
        """When everything is released, what is configured is all that is left."""
        if self.plan is None:
            return
        self.pods.clear()
        self.readable = True
        for _ in range(2):
            self.wall += 100_000
            self.write()
            self.read(burst=False)
            self.pass_time(DRAIN_FOR + EMPTY_FOR)
        wanted = self.node.wanted()
        groups = {(p.resource, g.uuid): g for p in self.plan.pools for g in p.groups}
        free = {key: group.unheld for key, group in groups.items()}
        assert free == {key: count for key, count in wanted.items() if count}
        assert not any(group.draining for pool in self.plan.pools for group in pool.lists)
        assert {pool.resource for pool in self.plan.pools} == {resource for resource, _ in wanted}
        assert next_turn(self.node, self.now, self.wall) is None


@pytest.mark.slow
def test_the_four_rules_hold() -> None:
    run_state_machine_as_test(FourRules, settings=SHORT)


@pytest.mark.slow
@pytest.mark.long
def test_the_four_rules_hold_at_length() -> None:
    run_state_machine_as_test(FourRules, settings=LONG)
