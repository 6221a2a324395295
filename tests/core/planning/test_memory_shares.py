"""Memory shares: what they count, what is advertised, and that nothing is ever split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.allocation.allocate import (
    Allocation,
    IdIndex,
    RefusalRule,
    RefusedError,
    allocate,
    choose,
    index,
    requested,
)
from sgpud.core.allocation.injection import GpuAccess, NodeHost
from sgpud.core.allocation.pending import PendingGrants
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import EventKind, GpuEvent
from sgpud.core.health.node_health import cordoned, heard
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.holdings import CheckpointState, Holder
from sgpud.core.planning.listing import DRAIN_FOR, ListedShares, Listing
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import GpuShares, Plan, Pool
from sgpud.core.sharing.limits import LimitError, TooLargeError, TooManyError, check_size
from sgpud.core.sharing.rules import (
    Advertise,
    GpuRule,
    InjectionMethod,
    InjectionSettings,
    Multiple,
    ShareTerms,
    Sharing,
)
from sgpud.core.sharing.share_id import memory_stem, share_id
from tests.core.values import (
    GIB,
    OTHER,
    POOL,
    checkpoint,
    fallen,
    gpu,
    group_of,
    holder,
    ids,
    node,
    planned,
    pool_of,
    served,
    uuid,
)

MIB = 2**20


def memory(size: int = GIB, **rest: Any) -> Sharing:
    """A configuration of memory shares."""
    injection = InjectionSettings(InjectionMethod.NVIDIA_RUNTIME)
    return evolve(Sharing(default=ShareTerms(POOL, 100, size), injection=injection), **rest)


STEM = memory_stem(POOL)


def tokens(*numbers: int) -> list[str]:
    """Ids of memory shares."""
    return [share_id(STEM, number) for number in numbers]


def bound(on: int, numbers: IntSet, size: int = GIB, **rest: Any) -> Holder:
    """A container that was given memory shares of GPU `on`."""
    found = holder({STEM: numbers})
    return evolve(found, per_gpu={uuid(on): 40}, sizes={uuid(on): size}, gpu=uuid(on), **rest)


def held_on(*counts: int) -> CheckpointState:
    """Books in which so many shares of each GPU are held, numbered one after the other."""
    found, start = [], 0
    for on, count in enumerate(counts):
        if count:
            found.append(bound(on, IntSet.span(start, start + count)))
        start += count
    return checkpoint(*found)


def own(found: Plan) -> GpuShares:
    """The ids of the pool."""
    listed = pool_of(found).own
    assert listed is not None
    return listed


def on(granted: Allocation) -> int:
    """The number of the GPU that was given."""
    return int(granted.gpu.partition("-")[2].partition("-")[0], 16)


# How many there are. -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("total", "reserved", "reserve", "size", "count"),
    [
        (40 * GIB, 0, 0, GIB, 40),
        (40 * GIB, 512 * MIB, 0, GIB, 39),
        (40 * GIB, 512 * MIB, 512 * MIB, GIB, 39),
        (40 * GIB, 512 * MIB, 513 * MIB, GIB, 38),
        (24 * GIB, 0, 0, 5 * GIB, 4),
        (GIB, 0, 0, 2 * GIB, 0),
        (GIB, 0, 2 * GIB, 64 * MIB, 0),
        (16 * GIB, 0, 0, 64 * MIB, 256),
    ],
)
def test_as_many_shares_as_fit_into_what_is_left(
    total: int, reserved: int, reserve: int, size: int, count: int
) -> None:
    config = memory(size, reserve_memory=reserve)
    of = node(config, [gpu(0, memory=total, reserved=reserved)])
    pool = pool_of(planned(of))
    assert sum(group.unheld for group in pool.groups) == count
    assert (len(pool.own.active) if pool.own else 0) == count


def test_a_gpu_smaller_than_a_share_is_noted() -> None:
    found = planned(node(memory(2 * GIB), [gpu(0, memory=GIB)]))
    assert "smaller than one share" in found.notes[0]


def test_too_many_shares_are_refused_with_the_arithmetic() -> None:
    big = gpu(0, memory=80 * GIB, reserved=GIB)
    config = memory(256 * MIB, reserve_memory=GIB)
    with pytest.raises(TooManyError) as caught:
        check_size(config, [big])
    assert f"{uuid(0)}: (80GiB - 1GiB kept by the driver - 1GiB reserve_memory) / 256MiB" in str(
        caught.value
    )
    assert "= 312 shares" in str(caught.value)
    assert caught.value.key == "sharing.share_memory"
    check_size(evolve(config, allow_large_status=True), [big])


def test_the_message_limit_names_the_key_that_counts() -> None:
    many = [gpu(number, memory=700 * GIB) for number in range(8)]
    with pytest.raises(TooLargeError, match="Raise share_memory") as caught:
        check_size(memory(64 * MIB, allow_large_status=True), many)
    assert caught.value.key == "sharing.share_memory"
    assert issubclass(TooLargeError, LimitError)


def test_at_start_too_many_shares_list_the_held_ones_only() -> None:
    known = checkpoint(bound(0, IntSet.of([3, 300]), 128 * MIB))
    found = planned(node(memory(128 * MIB), [gpu(0), gpu(1)], known))
    assert (own(found).listed, own(found).healthy) == (IntSet.of([3, 300]), own(found).held)
    assert ["= 320 shares" in note and "held" in note for note in found.notes] == [True, True]


# What a container is told. -----------------------------------------------------------------------


def test_the_container_gets_its_bytes_and_the_grant_records_them() -> None:
    found, pool, places = served(node(memory(), [gpu(0), gpu(1)]))
    granted = allocate(found, pool, places, tokens(*range(12)), at=1234.9)
    assert granted.answer.envs["SGPUD_MEMORY_BYTES"] == str(12 * GIB)
    assert granted.answer.envs["SGPUD_SHARES"] == "12"
    assert granted.answer.envs["SGPUD_SINCE"] == "1234"
    assert granted.sizes == {uuid(0): GIB}


def test_places_carry_no_bytes() -> None:
    config = Sharing(injection=InjectionSettings(InjectionMethod.NVIDIA_RUNTIME))
    found, pool, places = served(node(config, [gpu(0)]))
    granted = allocate(found, pool, places, ids(0, 5))
    assert "SGPUD_MEMORY_BYTES" not in granted.answer.envs
    assert "SGPUD_SINCE" not in granted.answer.envs
    assert granted.sizes == {}


def test_a_refusal_says_the_room_of_each_gpu() -> None:
    of = node(memory(advertise=Advertise.ALL), [gpu(0, memory=24 * GIB), gpu(1)], held_on(0, 30))
    found, pool, places = served(of)
    with pytest.raises(RefusedError) as caught:
        allocate(found, pool, places, tokens(*range(30, 55)))
    assert (caught.value.rule, caught.value.invalid) == (RefusalRule.ROOM, False)
    assert (
        f"no GPU has room for 25 memory shares (25GiB). Free now: {uuid(0)} 24 (24GiB),"
        f" {uuid(1)} 10 (10GiB); shares: "
    ) in str(caught.value)


def test_multiple_is_always_the_same_gpu() -> None:
    for multiple in Multiple:
        found = planned(node(memory(multiple=multiple), [gpu(0)]))
        assert pool_of(found).multiple is Multiple.SAME


def test_a_pool_of_places_beside_keeps_its_own_multiple() -> None:
    rules = (GpuRule(uuid(1), OTHER, 10),)
    config = memory(rules=rules, injection=InjectionSettings(InjectionMethod.VOLUME_MOUNTS))
    found = planned(node(config, [gpu(0), gpu(1)]))
    assert pool_of(found, OTHER).multiple is Multiple.DISTINCT
    assert not pool_of(found, OTHER).memory
    assert len(group_of(found, 1, OTHER).healthy) == 10


# Beside what is held on other terms. -------------------------------------------------------------


def test_a_changed_size_leaves_room_in_bytes() -> None:
    found = planned(node(memory(4 * GIB), [gpu(0)], held_on(13)))
    group = group_of(found, 0)
    # 40 GiB - 13 GiB = 27 GiB: six of 4 GiB, beside the thirteen that are held.
    assert (group.unheld, group.given, pool_of(found).size) == (6, 13, 4 * GIB)
    assert len(own(found).active) == 19


def test_places_of_another_pool_leave_room_in_bytes() -> None:
    taken = holder({uuid(0): IntSet.span(0, 25)}, resource=OTHER, per_gpu=100)
    found = planned(node(memory(), [gpu(0)], checkpoint(taken)))
    assert group_of(found, 0).unheld == 30


def test_memory_that_is_held_takes_its_fraction_of_the_places() -> None:
    config = Sharing(
        default=ShareTerms(OTHER, 100), injection=InjectionSettings(InjectionMethod.VOLUME_MOUNTS)
    )
    found = planned(node(config, [gpu(0)], held_on(10)))
    assert len(group_of(found, 0, OTHER).free) == 75
    assert group_of(found, 0).given == 10
    assert own(found).healthy == IntSet.span(0, 10)


def test_less_memory_than_was_listed_last_drains_in_two_steps() -> None:
    listed = Listing({(POOL, STEM): ListedShares(IntSet.span(0, 40), size=GIB)})
    start = Node(
        memory(), (gpu(0, reserved=512 * MIB),), checkpoint=CheckpointState(), listing=listed
    )
    first = advance(start, 0.0, 1000.0)
    assert (len(own(planned(first)).active), own(planned(first)).draining) == (39, IntSet.of([39]))
    later = advance(first, DRAIN_FOR, 1000.0 + DRAIN_FOR)
    assert own(planned(later)).listed == IntSet.span(0, 39)


def test_shares_of_an_older_sgpud_that_name_their_gpu_stay_held() -> None:
    old = evolve(bound(0, IntSet.span(0, 12)), shares={uuid(0): IntSet.span(0, 12)})
    found = planned(node(memory(), [gpu(0), gpu(1)], checkpoint(old)))
    group = group_of(found, 0)
    assert (group.healthy, group.given, group.unheld) == (IntSet.span(0, 12), 12, 28)
    assert len(own(found).active) == 68
    gone = planned(advance(node(memory(), [gpu(0)], checkpoint()), 1.0, 1001.0))
    assert group_of(gone, 0).listed == IntSet()


# What is advertised. -----------------------------------------------------------------------------


def test_the_room_of_the_roomiest_gpu_is_advertised_beside_what_is_held() -> None:
    gpus = [gpu(0), gpu(1), gpu(2, memory=24 * GIB)]
    found = planned(node(memory(), gpus, held_on(12, 5)))
    assert [group.offered for group in pool_of(found).groups] == [0, 35, 0]
    assert len(own(found).healthy) == 17 + 35
    assert len(own(found).active) == 40 + 40 + 24
    every = planned(node(memory(advertise=Advertise.ALL), gpus, held_on(12, 5)))
    assert own(every).healthy == own(every).active


def test_a_full_node_shows_the_held_shares() -> None:
    assert len(own(planned(node(memory(), [gpu(0)], held_on(40)))).healthy) == 40


def test_a_withheld_gpu_adds_nothing_and_gets_nothing() -> None:
    access = {uuid(1): GpuAccess(cdi="nvidia.com/gpu=1")}
    config = memory(injection=InjectionSettings(InjectionMethod.CDI))
    of = evolve(node(config, [gpu(0, memory=80 * GIB), gpu(1)]), host=NodeHost(access=access))
    assert [group.offered for group in pool_of(planned(of)).groups] == [0, 40]
    two = advance(cordoned(node(memory(), [gpu(0), gpu(1)]), uuid(0), on=True), 1.0, 1001.0)
    found, pool, places = served(two)
    assert on(allocate(found, pool, places, tokens(0, 1))) == 1


def test_shares_bound_to_a_sick_gpu_are_unhealthy_and_its_room_is_not_advertised() -> None:
    found = planned(fallen(node(memory(), [gpu(0), gpu(1)], held_on(12, 5)), uuid(0)))
    assert IntSet.span(0, 12) & own(found).healthy == IntSet()
    assert len(own(found).healthy) == 5 + 35
    assert len(own(found).active) == 80


def test_memory_shares_are_of_no_numa_node() -> None:
    assert not pool_of(planned(node(memory(numa=True), [gpu(0)]))).numa


# To which GPU they are bound. --------------------------------------------------------------------


def test_best_fit_takes_the_gpu_with_the_least_room_that_holds_the_request() -> None:
    found, pool, places = served(node(memory(), [gpu(0), gpu(1), gpu(2)], held_on(35, 20, 10)))
    for size, expected in ((5, 0), (6, 1), (20, 1), (21, 2), (30, 2)):
        assert on(allocate(found, pool, places, tokens(*range(65, 65 + size)))) == expected


def test_whoever_held_a_share_that_is_given_again_has_ended() -> None:
    """The kubelet frees what a finished pod held, and gives it on, before anybody knows."""
    found, pool, places = served(node(memory(), [gpu(0), gpu(1)], held_on(30, 30)))
    # Nowhere are 35 free: with the 30 of the first pod GPU 0 is empty.
    granted = allocate(found, pool, places, tokens(*range(30), *range(60, 65)), at=2000.0)
    assert on(granted) == 0
    # With all that it held, whichever of its shares the kubelet chose.
    some = allocate(found, pool, places, tokens(*range(20), *range(60, 75)), at=2000.0)
    assert on(some) == 0
    with pytest.raises(RefusedError):
        allocate(found, pool, places, tokens(*range(60, 71)), at=2000.0)


def test_what_an_ended_container_held_is_free_once() -> None:
    of = node(memory(), [gpu(0)], held_on(30))
    found, pool, places = served(of)
    pending = PendingGrants()
    first = choose(found, pool, requested(places, tokens(*range(5))), pending, 2000.0)
    grant = first.grant(POOL, 2000.0)
    pending.note(grant, pool)
    assert pending.left(pool, {}, 2000.0).of(uuid(0)) == 35 * GIB
    again = requested(places, tokens(*range(5, 10)))
    assert pending.left(pool, {STEM: IntSet.span(5, 10)}, 2000.0).of(uuid(0)) == 35 * GIB
    pending.note(choose(found, pool, again, pending, 2000.0).grant(POOL, 2000.0), pool)
    assert pending.left(pool, {}, 2000.0).of(uuid(0)) == 30 * GIB
    # The plan that follows counts it as ended, too, although the books are old.
    after = planned(advance(evolve(of, grants=(grant,)), 0.5, 2000.5), now=2000.5)
    assert [group.left for group in pool_of(after).groups] == [35 * GIB]
    assert IntSet.span(0, 30) & own(after).listed == IntSet.span(0, 30)


def test_a_reload_makes_nothing_of_what_is_given_again_larger_than_its_gpu() -> None:
    """From 1 GiB to 2 GiB: the ids of a pod that has ended are worth twice as much now."""
    of = node(memory(2 * GIB), [gpu(0)], checkpoint(*held_on(20).holders))
    found, pool, places = served(of)
    assert allocate(found, pool, places, tokens(*range(10)), at=2000.0).sizes == {uuid(0): 2 * GIB}
    # 20 GiB are free, and 20 GiB come back.
    assert allocate(found, pool, places, tokens(*range(16), *range(20, 24)), at=2000.0).gpu
    with pytest.raises(RefusedError):
        allocate(found, pool, places, tokens(*range(16), *range(20, 25)), at=2000.0)


def test_a_grant_counts_in_the_instant_in_which_it_is_given() -> None:
    found, pool, places = served(node(memory(), [gpu(0)], held_on(10)))
    pending = PendingGrants()
    first = choose(found, pool, requested(places, tokens(*range(10, 30))), pending, 2000.0)
    pending.note(first.grant(POOL, 2000.0), pool)
    assert pending.left(pool, {}, 2000.0).of(uuid(0)) == 10 * GIB
    with pytest.raises(RefusedError):
        choose(found, pool, requested(places, tokens(*range(30, 41))[:11]), pending, 2000.0)
    # 20 s later its container has ended, and so its shares are given on.
    again = requested(places, tokens(*range(10, 39)))
    assert choose(found, pool, again, pending, 2020.0).grant(POOL, 2020.0).gpu == uuid(0)


def init(size: int) -> tuple[Plan, Pool, IdIndex]:
    """An init container was given `size` shares of GPU 0 just now; GPU 1 has more room."""
    known = checkpoint(bound(0, IntSet.span(0, size), since=1999.0), bound(1, IntSet.span(50, 55)))
    return served(advance(node(memory(), [gpu(0), gpu(1)], known), 0.0, 2000.0), now=2000.0)


def test_a_container_that_takes_over_from_an_init_container_stays_on_its_gpu() -> None:
    found, pool, places = init(30)
    assert on(allocate(found, pool, places, tokens(*range(20)), at=2000.0)) == 0
    assert on(allocate(found, pool, places, tokens(*range(40)), at=2000.0)) == 0


def test_an_init_container_that_is_still_to_run_keeps_its_memory_beside_another_gpu() -> None:
    known = checkpoint(
        bound(0, IntSet.span(0, 12), since=1999.0), bound(0, IntSet.span(20, 40), since=1000.0)
    )
    of = advance(node(memory(), [gpu(0), gpu(1)], known), 0.0, 2000.0)
    found, pool, places = served(of, now=2000.0)
    chosen = choose(
        found, pool, requested(places, tokens(*range(12), *range(40, 58))), PendingGrants(), 2000.0
    )
    grant = chosen.grant(POOL, 2000.0)
    assert grant.gpu == uuid(1)
    after = planned(advance(evolve(of, grants=(grant,)), 0.5, 2000.5), now=2000.5)
    assert [group.left for group in pool_of(after).groups] == [8 * GIB, 10 * GIB]
    old = evolve(of, checkpoint=checkpoint(bound(0, IntSet.span(0, 12), since=1000.0)))
    after = planned(advance(evolve(old, grants=(grant,)), 0.5, 2000.5), now=2000.5)
    assert [group.left for group in pool_of(after).groups] == [40 * GIB, 10 * GIB]


# Over random histories. --------------------------------------------------------------------------

several = st.lists(st.sampled_from([8, 16, 24, 40]), min_size=1, max_size=4).map(
    lambda sizes: [gpu(number, memory=size * GIB) for number, size in enumerate(sizes)]
)
steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["ask", "ask", "ask", "init", "end", "read", "read", "size", "sick", "out"]
        ),
        st.integers(0, 45),
        st.sampled_from([0.01, 0.5, 4.0, 12.0, 60.0]),
    ),
    max_size=40,
)


@define
class Kubelet:
    """Who runs in truth, and what the kubelet lists; sgpud reads its books late or never."""

    node: Node
    random: Any
    now: float = 0.0
    pods: list[list[Holder]] = field(factory=list)
    """The containers of each pod; an init container's are those of the pod, too, until its end."""
    pending: PendingGrants = field(factory=PendingGrants)
    size: int = GIB

    @property
    def wall(self) -> float:
        return 1000.0 + self.now

    def replan(self) -> Plan:
        self.node = advance(self.node, self.now, self.wall)
        found = planned(self.node, now=self.wall)
        self.pending = PendingGrants()
        self.check(found)
        return found

    def check(self, found: Plan) -> None:
        """No GPU declares more than it has; what is held stays listed, under one meaning."""
        used: dict[str, dict[int, int]] = {}
        for number, pod in enumerate(self.pods):
            for one in pod:
                on_gpu = used.setdefault(one.gpu, {})
                count = len(one.shares[STEM]) * one.sizes[one.gpu]
                # Containers of one pod share what they take over: the larger of them counts.
                on_gpu[number] = max(on_gpu.get(number, 0), count)
        for card in self.node.gpus or ():
            assert sum(used.get(card.uuid, {}).values()) <= (card.memory or 0)
        pool = found.pool(POOL)
        held = IntSet.union(one.shares[STEM] for pod in self.pods for one in pod)
        if held:
            assert pool is not None
            assert pool.own is not None
            assert not held - pool.own.listed

    def ask(self, found: Plan, count: int, *, init: bool) -> None:
        pool = found.pool(POOL)
        if pool is None or pool.own is None or not count:
            return
        taken = IntSet.union(one.shares[STEM] for pod in self.pods for one in pod)
        free = list(pool.own.healthy - taken)
        pod: list[Holder] = []
        first = self.give(found, pool, free, count, pod)
        if first and init:
            mine = list(first.shares[STEM])
            rest = [number for number in free if number not in first.shares[STEM]]
            self.give(found, pool, mine + rest, self.random.randint(1, count + 5), pod, len(mine))
        if pod:
            self.pods.append(pod)

    def give(
        self,
        found: Plan,
        pool: Pool,
        free: list[int],
        count: int,
        pod: list[Holder],
        first: int = 0,
    ) -> Holder | None:
        """Have a container given so many of the free ids: the first ones before any other."""
        if len(free) < count:
            return None
        rest = free[first:]
        self.random.shuffle(rest)
        chosen = (free[:first] + rest)[:count]
        try:
            choice = choose(
                found, pool, requested(index(pool), tokens(*chosen)), self.pending, self.wall
            )
        except RefusedError as refusal:
            assert refusal.rule is RefusalRule.ROOM  # noqa: PT017
            return None
        grant = choice.grant(POOL, self.wall)
        self.pending.note(grant, pool)
        self.node = evolve(self.node, grants=(*self.node.grants, grant))
        terms = (grant.shares, grant.per_gpu, grant.sizes, float(int(self.wall)))
        pod.append(Holder(f"pod{self.now}", f"c{len(pod)}", POOL, *terms, gpu=grant.gpu))
        return pod[-1]


@given(several, steps, st.sampled_from(Advertise), st.randoms(use_true_random=False))
def test_no_history_gives_containers_more_than_a_gpu_has(
    gpus: Sequence[Gpu],
    history: list[tuple[str, int, float]],
    advertise: Advertise,
    random: Any,
) -> None:
    kubelet = Kubelet(node(memory(advertise=advertise), gpus), random)
    found = kubelet.replan()
    for what, number, wait in history:
        kubelet.now += wait
        if what in ("ask", "init"):
            kubelet.ask(found, number, init=what == "init")
            kubelet.check(found)
            if number % 2:
                continue  # the plan is not made again before the next request
        elif what == "end" and kubelet.pods:
            del kubelet.pods[number % len(kubelet.pods)]
        elif what == "read":
            holders = tuple(one for pod in kubelet.pods for one in pod)
            books = CheckpointState(holders, kubelet.wall)
            kubelet.node = evolve(kubelet.node, checkpoint=books)
        elif what == "size":
            size = (1 + number % 3) * GIB
            config = memory(size, advertise=advertise)
            kubelet.node = evolve(kubelet.node, sharing=config)
        elif what == "sick":
            kubelet.node = heard(
                kubelet.node, GpuEvent(uuid(number % 4), EventKind.XID, 79), kubelet.now
            )
        elif what == "out":
            kubelet.node = cordoned(kubelet.node, uuid(number % 4), on=number % 8 < 4)
        found = kubelet.replan()


@given(several, st.lists(st.integers(0, 30), max_size=4))
def test_largest_advertises_exactly_the_largest_request_that_fits(
    gpus: Sequence[Gpu], counts: list[int]
) -> None:
    counts = [
        min(count, (one.memory or 0) // GIB) for one, count in zip(gpus, counts, strict=False)
    ]
    found, pool, places = served(node(memory(), gpus, held_on(*counts)))
    free = list(own(found).healthy - own(found).held)
    assert len(free) == max(group.unheld for group in pool.groups)
    if free:
        assert allocate(found, pool, places, tokens(*free)).gpu
    every = node(memory(advertise=Advertise.ALL), gpus, held_on(*counts))
    assert own(planned(every)).healthy == own(planned(every)).active
