"""What holds of every simulation: nothing is lost, nothing is given twice, and packed is good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.cli.simulate.engine.node import Given, ShortError, SimulatedNode
from sgpud.cli.simulate.engine.rooms import fits, never_fits
from sgpud.cli.simulate.engine.simulation import plans, simulate
from sgpud.cli.simulate.engine.values import (
    Baseline,
    Cluster,
    ContainerRequest,
    PodOutcome,
    PodRequest,
    PodResult,
    WaitReason,
)
from sgpud.core.allocation.allocate import RefusedError, allocate, index
from sgpud.core.allocation.preference import pick, prefer
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.intset import IntSet
from sgpud.core.planning.advance import advance
from sgpud.core.planning.holdings import CheckpointState, Holder, held
from sgpud.core.planning.listing import Listing
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Availability, GpuShares, Plan, Pool, plan
from sgpud.core.sharing.rules import Advertise, Multiple, Placement, ShareTerms, Sharing
from sgpud.core.sharing.share_id import memory_stem, parse_share_id, share_id
from tests.core.values import GIB, POOL, gpu

SIZE = 10 * GIB
"""Four memory shares on each GPU of 40 GiB."""

gpus = st.integers(1, 3).map(lambda count: tuple(map(gpu, range(count))))
configurations = st.builds(
    Sharing,
    default=st.builds(
        ShareTerms, st.just(POOL), st.integers(1, 5), share_memory=st.sampled_from([0, SIZE])
    ),
    placement=st.sampled_from(Placement),
    multiple=st.sampled_from(Multiple),
    advertise=st.sampled_from(Advertise),
)
clusters = st.builds(
    Cluster,
    configurations,
    st.lists(gpus, min_size=1, max_size=3).map(tuple),
    tries=st.integers(1, 3),
    baseline=st.none() | st.sampled_from(Baseline),
)
pods = st.lists(
    st.builds(
        PodRequest,
        name=st.just("pod"),
        at=st.integers(0, 90).map(float),
        containers=st.lists(
            st.builds(ContainerRequest, st.integers(1, 6), st.just(POOL)), min_size=1, max_size=2
        ).map(tuple),
        duration=st.none() | st.sampled_from([0.0, 0.05, 3.0, 11.5, 60.0, 200.0]),
    ),
    max_size=25,
)


def possible(cluster: Cluster, asked: Sequence[PodRequest]) -> list[PodRequest]:
    empty = list(plans(cluster).values())
    return [
        each
        for each in asked
        if never_fits(empty, [(one.resource, one.shares) for one in each.containers]) is None
    ]


def wanted(request: PodRequest) -> int:
    return dict(request.wants)[POOL]


def ask(at: float, shares: int) -> PodRequest:
    return PodRequest("pod", at, (ContainerRequest(shares, POOL),))


def shares_of(entry: PodResult) -> Counter[tuple[int, int]]:
    assert entry.node is not None
    return Counter({(entry.node, position): count for position, count in entry.gpus.items()})


@given(clusters, pods)
def test_every_pod_ends_somewhere_and_no_share_is_held_twice(
    cluster: Cluster, asked: list[PodRequest]
) -> None:
    requests = possible(cluster, asked)
    outcome = simulate(cluster, requests)
    assert [entry.request for entry in outcome.entries] == requests
    size = {(one.node, one.position): one.shares for one in outcome.histories}
    moments = sorted({entry.placed for entry in outcome.entries if entry.placed is not None})
    for moment in moments:
        total: Counter[tuple[int, int]] = Counter()
        for entry in outcome.entries:
            if entry.placed is None or entry.placed > moment:
                continue
            if entry.ended is None or entry.ended > moment:
                total += shares_of(entry)
        assert all(count <= size[key] for key, count in total.items())
    for entry in outcome.entries:
        placed = entry.end is PodOutcome.PLACED
        assert placed == (entry.placed is not None) == bool(entry.gpus)
        assert (entry.end is PodOutcome.FAILED) <= (len(entry.failures) == cluster.tries)
        assert len(entry.failures) <= cluster.tries
        if placed and entry.placed is not None:
            assert sum(entry.gpus.values()) == wanted(entry.request)
            for container, given in zip(entry.request.containers, entry.given, strict=True):
                assert sum(given.values()) == container.shares
            assert entry.placed >= entry.request.at
            ends = entry.request.duration
            assert entry.ended == (None if ends is None else entry.placed + ends)


@given(clusters, pods)
def test_the_histories_match_what_the_pods_held(cluster: Cluster, asked: list[PodRequest]) -> None:
    outcome = simulate(cluster, possible(cluster, asked))
    for history in outcome.histories:
        assert all(0 <= use.held <= history.shares for use in history.uses)
        assert [use.at for use in history.uses] == sorted({use.at for use in history.uses})
        forever = sum(
            entry.gpus.get(history.position, 0)
            for entry in outcome.entries
            if entry.node == history.node and entry.ended is None
        )
        assert (history.uses[-1].held if history.uses else 0) == forever


@given(clusters, pods)
def test_a_simulation_is_deterministic(cluster: Cluster, asked: list[PodRequest]) -> None:
    requests = possible(cluster, asked)
    assert simulate(cluster, requests) == simulate(cluster, requests)


@given(clusters, pods)
def test_a_pod_that_waits_at_the_end_does_not_fit(
    cluster: Cluster, asked: list[PodRequest]
) -> None:
    """With every report in, nobody waits beside room that the scheduler would have bound."""
    outcome = simulate(cluster, possible(cluster, asked))
    free = {(one.node, one.position): one.shares for one in outcome.histories}
    for entry in outcome.entries:
        if entry.placed is not None and entry.ended is None:
            for key, count in shares_of(entry).items():
                free[key] -= count
    for entry in outcome.entries:
        if entry.end is not PodOutcome.WAITING:
            continue
        shares = wanted(entry.request)
        for node in range(len(cluster.nodes)):
            rooms = [room for (where, _), room in free.items() if where == node]
            if cluster.baseline is not None:
                pool = plans(cluster)[cluster.nodes[node]].pool(POOL)
                assert pool is not None
                assert len(entry.request.containers) > 1 or not fits(pool, rooms, shares)
                continue
            memory = cluster.sharing.default.share_memory
            if memory and cluster.sharing.advertise is Advertise.LARGEST:
                assert max(rooms) < shares
            else:
                assert sum(rooms) < shares


steps = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), max_size=20)


@given(configurations.map(lambda config: evolve(config, advertise=Advertise.ALL)), gpus, steps)
def test_a_simulated_node_places_as_the_daemon_does(
    config: Sharing, cards: tuple[Gpu, ...], moves: list[tuple[int, int]]
) -> None:
    """Beside a node with a book of ids, planned anew for each pod and asked by ids."""
    simulated = SimulatedNode.of(config, cards)
    node = advance(Node(config, cards, checkpoint=CheckpointState()), 0.0, 0.0)
    running: list[tuple[Given, Holder]] = []
    for now, (shares, leaves) in enumerate(moves):
        holder = daemon(node, shares)
        try:
            counts = simulated.admit(POOL, shares, float(now))
        except (ShortError, RefusedError):
            assert holder is None
        else:
            assert holder is not None
            assert named(node, holder) == counts
            running.append((counts, holder))
        if leaves < len(running):
            gone, _ = running.pop(leaves)
            simulated.release(POOL, gone, float(now))
        simulated.look()
        node = advance(
            evolve(node, checkpoint=CheckpointState(tuple(holder for _, holder in running))),
            float(now),
            0.0,
        )


def daemon(node: Node, shares: int) -> Holder | None:
    """What a kubelet gets of the daemon for a pod; None where it fails it."""
    made = plan(node, 0.0)
    pool = made.pool(POOL) if made else None
    assert made is not None
    assert pool is not None
    ids = [share_id(group.uuid, number) for group in pool.lists for number in group.free]
    if len(ids) < shares:
        return None
    places = index(pool)
    chosen = prefer(made, pool, places, ids, (), shares).ids if len(ids) > shares else ids
    try:
        granted = allocate(made, pool, places, chosen)
    except RefusedError:
        return None
    terms = (granted.shares, granted.per_gpu, granted.sizes)
    return Holder("", "", POOL, *terms, gpu=granted.gpu)


def named(node: Node, holder: Holder) -> Given:
    made = plan(node, 0.0)
    pool = made.pool(POOL) if made else None
    assert pool is not None
    return tuple(
        (position, sum(map(len, holder.shares.values())))
        if holder.gpu
        else (position, len(holder.shares[group.uuid]))
        for position, group in enumerate(pool.groups)
        if group.uuid in (holder.gpu or holder.shares)
    )


@given(configurations, gpus, st.lists(st.integers(0, 5), min_size=3, max_size=3), st.integers(1, 6))
def test_pick_chooses_what_prefer_chooses(
    config: Sharing, cards: tuple[Gpu, ...], left: list[int], size: int
) -> None:
    # Of these the node can hand over every one.
    simulated = tuple(evolve(card, fake=True) for card in cards)
    made = plan(advance(Node(config, simulated, checkpoint=CheckpointState()), 0.0, 0.0), 0.0)
    pool = made.pool(POOL) if made else None
    assert made is not None
    assert pool is not None
    free = [group.active.lowest(count) for group, count in zip(pool.groups, left, strict=False)]
    ids = [
        share_id(group.uuid, number)
        for group, numbers in zip(pool.groups, free, strict=True)
        for number in numbers
    ]
    places = [parse_share_id(one) for one in prefer(made, pool, index(pool), ids, (), size).ids]
    chosen = Counter(place[0] for place in places if place)
    taken = pick(made, pool, list(map(len, free)), size)
    assert taken == [chosen[group.uuid] for group in pool.groups]


@given(configurations, gpus, steps)
def test_a_node_keeps_the_rules_of_the_plan_and_its_list(
    config: Sharing, cards: tuple[Gpu, ...], moves: list[tuple[int, int]]
) -> None:
    """Held stays listed and Healthy, no id leaves or changes, and the list is the listing's own."""
    simulated = SimulatedNode.of(config, cards)
    listed = {group.uuid: group.listed for group in groups(simulated)}
    running: list[Given] = []
    for now, (shares, leaves) in enumerate(moves):
        with suppress(ShortError, RefusedError):
            running.append(simulated.admit(POOL, shares, 7.0 * now))
        if leaves < len(running):
            simulated.release(POOL, running.pop(leaves), 7.0 * now)
        looks = leaves % 2 == 0
        if looks:
            simulated.look()
        healthy = simulated.report(7.0 * now + 1)[POOL]
        total = Counter(dict.fromkeys(range(len(cards)), 0))
        for counts in running:
            total.update(dict(counts))
        if looks:
            assert simulated.plan == planned(config, cards, total)
        assert healthy >= sum(total.values())
        assert all(free >= 0 for each in simulated._served.values() for free in each.free())
        assert {group.uuid: group.listed for group in groups(simulated)} == listed
        for position, group in enumerate(groups(simulated)):
            if group.availability is not Availability.UNHEALTHY and group.held:
                assert not group.held - group.healthy
            assert total[position] <= group.given + group.unheld
            assert simulated.room(POOL)[position] == group.given + group.unheld - total[position]


def planned(config: Sharing, cards: tuple[Gpu, ...], counts: Counter[int]) -> Plan | None:
    """The plan of a node whose GPUs have so many of their shares held, made from its books."""
    node = advance(Node(config, cards, checkpoint=CheckpointState()), 0.0, 0.0)
    pool = pool_of(node)
    checkpoint = CheckpointState(tuple(holders(pool, [counts[n] for n in range(len(cards))])))
    return plan(advance(evolve(node, checkpoint=checkpoint), 500.0, 500.0), 0.0)


def holders(pool: Pool, counts: Sequence[int]) -> Iterator[Holder]:
    """A container on each GPU, with so many of its shares: the first of the numbers it has."""
    start = 0
    for group, wanted in zip(pool.groups, counts, strict=False):
        count = min(wanted, group.unheld)
        parts = {group.uuid: group.parts}
        if count and pool.memory:
            shares = {memory_stem(POOL): IntSet.span(start, start + count)}
            yield Holder("", "", POOL, shares, parts, {group.uuid: group.size}, gpu=group.uuid)
        elif count:
            yield Holder("", "", POOL, {group.uuid: group.active.lowest(count)}, parts)
        start += group.given + group.unheld


def pool_of(node: Node) -> Pool:
    made = plan(node, 0.0)
    pool = made.pool(POOL) if made else None
    assert pool is not None
    return pool


def groups(node: SimulatedNode) -> tuple[GpuShares, ...]:
    pool = node.plan.pool(POOL)
    assert pool is not None
    return pool.groups


@given(configurations, gpus, st.lists(st.integers(0, 4), min_size=3, max_size=3))
def test_the_listing_of_a_node_does_not_depend_on_holders(
    config: Sharing, cards: tuple[Gpu, ...], counts: list[int]
) -> None:
    """That is why a simulation advances each node once."""
    node = advance(Node(config, cards, checkpoint=CheckpointState()), 0.0, 0.0)
    made = plan(node, 0.0)
    pool = made.pool(POOL) if made else None
    assert pool is not None
    checkpoint = CheckpointState(tuple(holders(pool, counts)))
    after: Listing = advance(evolve(node, checkpoint=checkpoint), 500.0, 500.0).listing
    assert after == node.listing
    known = sum(len(numbers) for one in checkpoint.holders for numbers in one.shares.values())
    assert sum(map(len, held(checkpoint, ()).values())) == known


@cache
def most(sizes: tuple[int, ...], rooms: tuple[int, ...]) -> int:
    """How many of these pods fit on these GPUs at best, each on one: every way is tried."""
    if not sizes:
        return 0
    best = most(sizes[1:], rooms)
    for at, room in enumerate(rooms):
        if room >= sizes[0]:
            left = tuple(sorted((*rooms[:at], room - sizes[0], *rooms[at + 1 :])))
            best = max(best, 1 + most(sizes[1:], left))
    return best


@given(st.lists(st.integers(1, 6), min_size=1, max_size=7), st.integers(1, 3), st.integers(2, 6))
def test_packed_places_as_many_as_any_way_could(sizes: list[int], count: int, shares: int) -> None:
    """Pods alike: always the optimum. The small ones first: never less than half of it."""
    config = Sharing(
        default=ShareTerms(POOL, shares), placement=Placement.PACKED, multiple=Multiple.SAME
    )
    cluster = Cluster(config, (tuple(map(gpu, range(count))),), tries=1)
    fitting = [size for size in sizes if size <= shares]
    ones = [ask(float(at), 1) for at in range(len(sizes))]
    assert placed(cluster, ones) == min(len(sizes), count * shares)
    alike = [ask(float(at), fitting[0]) for at in range(len(fitting))]
    if fitting:
        best = most((fitting[0],) * len(fitting), (shares,) * count)
        assert placed(cluster, alike) == best
    ordered = [ask(float(at), size) for at, size in enumerate(sorted(fitting))]
    best = most(tuple(sorted(fitting)), (shares,) * count)
    assert best / 2 <= placed(cluster, ordered) <= best


def placed(cluster: Cluster, requests: Sequence[PodRequest]) -> int:
    outcome = simulate(cluster, requests)
    return sum(entry.end is PodOutcome.PLACED for entry in outcome.entries)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=7), st.integers(1, 3), st.integers(2, 6))
def test_packed_uses_the_fullest_gpu_that_fits_and_no_pod_waits_needlessly(
    sizes: list[int], count: int, shares: int
) -> None:
    config = Sharing(
        default=ShareTerms(POOL, shares), placement=Placement.PACKED, multiple=Multiple.SAME
    )
    cluster = Cluster(config, (tuple(map(gpu, range(count))),), tries=1)
    fitting = [size for size in sizes if size <= shares]
    requests = [ask(float(at), size) for at, size in enumerate(fitting)]
    outcome = simulate(cluster, requests)
    rooms = [shares] * count
    for entry in outcome.entries:
        if entry.end is PodOutcome.PLACED:
            (position,) = entry.gpus
            tight = [room for room in rooms if room >= wanted(entry.request)]
            assert rooms[position] == min(tight)
            rooms[position] -= wanted(entry.request)
        else:
            assert max(rooms) < wanted(entry.request)
    done = sum(entry.end is PodOutcome.PLACED for entry in outcome.entries)
    assert done <= most(tuple(fitting), (shares,) * count)


@given(clusters, pods)
def test_a_wait_is_explained(cluster: Cluster, asked: list[PodRequest]) -> None:
    for entry in simulate(cluster, possible(cluster, asked)).entries:
        late = entry.placed is None or entry.placed > entry.request.at
        if late and not entry.failures:
            assert entry.waits
        if entry.end is PodOutcome.WAITING:
            assert entry.waits
        assert set(entry.waits) <= set(WaitReason)
