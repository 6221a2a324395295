"""Random histories of a node, against models of both drivers: caps are right, and none is left."""

from __future__ import annotations

from random import Random

import pytest

from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import CapTerms
from sgpud.core.limits.settings import MemoryLimits
from sgpud.core.planning.holdings import Holder
from sgpud.limits.helper.nvml import UNLIMITED
from sgpud.limits.keeper import NotLimitedError
from tests.core.values import GIB
from tests.limits.models import DmemModel, MiscModel
from tests.limits.world import A, B, World, container, path_of, uid

FACTORS = (1.0, 1.5, 4.0)
STEPS = 25


class History:
    """One history, and what is true of it at each moment."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - it has to come again
        self.world = World(self.random.choice((DmemModel, MiscModel))())
        memory = self.random.choice((MemoryLimits.AUTO, MemoryLimits.REQUIRE))
        self.world.order(memory=memory)
        self.factor = 1.0
        self.pods = 0
        self.started: set[str] = set()
        self.foreign: dict[tuple[str, str], int] = {}
        self.free = {A: 0, B: 0}

    def step(self) -> None:
        """Something happens."""
        happenings = (
            *(self.admit, self.start, self.start, self.end, self.linger, self.take),
            *(self.tick, self.tick, self.restart, self.helper, self.reload, self.fail),
            *(self.limited_by_another, self.other_factor, self.unreadable),
        )
        self.random.choice(happenings)()
        self.check()

    def admit(self) -> None:
        pod, on = uid(self.pods), self.random.choice((A, B))
        self.pods += 1
        counts = [self.random.randint(1, 6) for _ in range(self.random.randint(1, 3))]
        made = []
        for number, count in enumerate(counts):
            numbers = IntSet.span(self.free[on], self.free[on] + count)
            self.free[on] += count
            made.append(container(f"c{number}", numbers, on, at=self.world.now))
        if self.random.random() < 0.3:
            # Its shares are the first container's later.
            more = self.random.randint(0, 4)
            numbers = made[0].shares[next(iter(made[0].shares))]
            handed = numbers | IntSet.span(self.free[on], self.free[on] + more)
            self.free[on] += more
            made.insert(0, container("init", handed, on, at=self.world.now - 1))
        self.world.admit(pod, *made)

    def start(self) -> None:
        if not self.world.books:
            return
        one = self.random.choice(self.world.books)
        try:
            self.world.start(one)
        except NotLimitedError:
            assert self.world.orders.memory is MemoryLimits.REQUIRE
            return
        self.started.add(one.pod)
        if self.world.orders.memory is MemoryLimits.REQUIRE:
            limit, _ = self.world.driver.get(one.gpu, path_of(one.pod))
            assert limit <= self.promised(one.pod, one.gpu) * self.factor

    def take(self) -> None:
        """A container that has started takes memory."""
        pods = sorted(self.started & {one.pod for one in self.world.books})
        if pods:
            pod = self.random.choice(pods)
            on = next(one.gpu for one in self.world.books if one.pod == pod)
            leaf = f"{path_of(pod)}/cri-containerd-{'0' * 64}.scope"
            self.world.driver.allocate(on, leaf, self.random.randint(1, 4) * GIB)

    def end(self) -> None:
        if self.world.books:
            pod = self.random.choice(self.world.books).pod
            self.world.end(pod)
            self.forget(pod)

    def linger(self) -> None:
        """A pod ends, and its cgroup stays for some time; or one that has stayed goes."""
        held = {path_of(one.pod) for one in self.world.books}
        gone = [number for number in range(self.pods) if path_of(uid(number)) not in held]
        staying = [number for number in gone if path_of(uid(number)) in self.world.cgroups]
        if staying and self.random.random() < 0.5:
            pod = uid(self.random.choice(staying))
            self.world.remove(pod)
            self.forget(pod)
        elif self.world.books:
            self.world.end(self.random.choice(self.world.books).pod, lingers=True)

    def forget(self, pod: str) -> None:
        self.foreign = {key: size for key, size in self.foreign.items() if key[1] != pod}

    def tick(self) -> None:
        self.world.look()

    def restart(self) -> None:
        self.world.now += 10
        self.world.restart()

    def helper(self) -> None:
        self.world.away = not self.world.away

    def unreadable(self) -> None:
        self.world.readable = not self.world.readable

    def reload(self) -> None:
        """The driver is loaded again: nobody has memory, and there is no limit."""
        self.world.driver.limits.clear()
        self.world.driver.held.clear()
        getattr(self.world.driver, "counted", {}).clear()
        self.foreign.clear()

    def fail(self) -> None:
        self.world.failing = self.random.randint(1, 4)

    def limited_by_another(self) -> None:
        """Somebody else limits a pod that sgpud has not limited."""
        if not self.world.books:
            return
        one = self.random.choice(self.world.books)
        key = (one.gpu, path_of(one.pod))
        if key not in self.world.driver.limits and key[1] in self.world.cgroups:
            size = 777 * 2**20
            if self.world.driver.used(*key) <= size:
                self.world.driver.set(*key, size)
                self.foreign[one.gpu, one.pod] = size

    def other_factor(self) -> None:
        self.factor = self.random.choice(FACTORS)
        self.world.order(terms=CapTerms(self.factor))

    # What is true. -------------------------------------------------------------------------------

    def promised(self, pod: str, on: str) -> int:
        """What a pod holds of a GPU: each share once."""
        mine = [one for one in self.world.books if one.pod == pod and one.gpu == on]
        return len(set().union(*(set(_numbers(one)) for one in mine))) * GIB

    def check(self) -> None:
        """No cap is above what its pod holds, and another's limit is as it was set."""
        driver = self.world.driver
        for pod in {one.pod for one in self.world.books}:
            for on in (A, B):
                limit = driver.limits.get((on, path_of(pod)), UNLIMITED)
                if (on, pod) in self.foreign:
                    assert limit == self.foreign[on, pod]
                elif limit != UNLIMITED:
                    assert limit <= self.promised(pod, on) * max(FACTORS)

    def settled(self) -> None:
        """In the end everything works, and is looked at: the caps are exactly those due."""
        world = self.world
        world.away, world.readable, world.failing = False, True, 0
        world.look()
        world.look()
        due = {}
        for one in world.books:
            key = (one.gpu, path_of(one.pod))
            if key[1] not in world.cgroups or (one.gpu, one.pod) in self.foreign:
                continue
            if one.pod in self.started or key in world.driver.limits:
                due[key] = min(int(self.promised(one.pod, one.gpu) * self.factor), 40 * GIB)
        others = {(on, path_of(pod)) for on, pod in self.foreign}
        found = {key: size for key, size in world.driver.limits.items() if key not in others}
        for key, size in due.items():
            # Where more is in use than a lower factor allows, misc keeps the limit of before.
            kept = world.driver.used(*key) > size
            assert found.pop(key, None) == size or kept, key
        assert found == {}


def _numbers(one: Holder) -> IntSet:
    return next(iter(one.shares.values()))


def play(seed: int) -> None:
    history = History(seed)
    for _ in range(STEPS):
        history.step()
    history.settled()


@pytest.mark.parametrize("part", range(4))
def test_caps_are_right_in_every_history(part: int) -> None:
    for seed in range(part * 50, part * 50 + 50):
        play(seed)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_caps_are_right_in_ten_thousand_histories(part: int) -> None:
    for seed in range(1000 + part * 500, 1500 + part * 500):
        play(seed)
