"""What a simulation says of nodes that are drivers of DRA: the scheduler sees each GPU."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpud.cli.main import main
from sgpud.cli.simulate.engine.rooms import fits, never_fits
from sgpud.cli.simulate.engine.simulation import plans, simulate
from sgpud.cli.simulate.engine.summary import waited
from sgpud.cli.simulate.engine.values import (
    Cluster,
    ContainerRequest,
    PodOutcome,
    PodRequest,
    SimulatedDra,
    SimulationResult,
)
from sgpud.core.dra.slices import DraSettings
from sgpud.core.sharing.rules import Multiple, Placement, ShareTerms, Sharing
from tests.core.values import GIB, POOL, gpu

MEMORY = Sharing(default=ShareTerms(POOL, share_memory=GIB))
"""40 shares of 1GiB on each GPU."""
GPUS = '[[gpu]]\nproduct = "NVIDIA A100"\nmemory = "40GiB"\ncount = 2\n'


def published(
    placement: Placement | None = Placement.PACKED, default: int = 0, every: float = 10.0
) -> SimulatedDra:
    settings = DraSettings(default, placement=placement, memory_placement=placement)
    return SimulatedDra(settings, every)


def pod(at: float, shares: int = 1, duration: float | None = None) -> PodRequest:
    return PodRequest(f"pod at {at}", at, (ContainerRequest(shares, POOL),), duration)


def play(
    sharing: Sharing, dra: SimulatedDra, *pods: PodRequest, gpus: int = 2, nodes: int = 1
) -> SimulationResult:
    return simulate(Cluster(sharing, (tuple(map(gpu, range(gpus))),) * nodes, 10, dra), pods)


def where(outcome: SimulationResult) -> list[dict[int, int]]:
    return [dict(entry.gpus) for entry in outcome.entries]


def test_packed_fills_the_fullest_gpu_and_spread_the_emptiest() -> None:
    pods = [pod(20.0 * number, 10) for number in range(4)]
    assert where(play(MEMORY, published(), *pods)) == [{0: 10}] * 4
    spread = play(MEMORY, published(Placement.SPREAD), *pods)
    assert where(spread) == [{0: 10}, {1: 10}, {0: 10}, {1: 10}]
    assert where(play(MEMORY, published(None), *pods)) == [{0: 10}] * 4


def test_best_fit_goes_by_the_order_that_was_published() -> None:
    """GPU 1 has less room soon; a pod in the same moment still finds the order of before."""
    first = [pod(0, 10), pod(0, 35)]
    assert where(play(MEMORY, published(), *first, pod(20, 5)))[2] == {1: 5}
    assert where(play(MEMORY, published(), *first, pod(0.1, 5)))[2] == {0: 5}
    assert where(play(MEMORY, published(every=60), pod(-70, 1, 5), *first, pod(20, 5))) == [
        {0: 1},
        {0: 10},
        {1: 35},
        {1: 5},
    ]


def test_a_burst_is_placed_by_the_order_of_before_it() -> None:
    burst = play(MEMORY, published(Placement.SPREAD), *[pod(0, 10) for _ in range(6)])
    assert where(burst) == [{0: 10}] * 4 + [{1: 10}] * 2


def test_nothing_fails_where_a_device_plugin_fails_pods() -> None:
    """The scheduler counts an ended pod's memory as free, on the GPU where it was."""
    pods = [pod(0, 25, 100), pod(0, 25), pod(5, 20), pod(6, 15)]
    outcome = play(MEMORY, published(), *pods)
    assert not any(entry.failures for entry in outcome.entries)
    late, small = outcome.entries[2:]
    assert (late.placed, late.gpus) == (100, {0: 20})
    assert (small.placed, small.gpus) == (6, {0: 15})


def test_several_places_are_several_gpus_or_a_claim_for_one() -> None:
    places = Sharing(default=ShareTerms(POOL, 4))
    assert where(play(places, published(), pod(0, 2))) == [{0: 1, 1: 1}]
    same = Sharing(default=ShareTerms(POOL, 4), multiple=Multiple.SAME)
    assert where(play(same, published(), pod(0, 3), pod(0, 2))) == [{0: 3}, {1: 2}]


def test_whole_gpus_are_one_claim_and_containers_are_claims_of_one_pod() -> None:
    same = Sharing(default=ShareTerms(POOL, 4), multiple=Multiple.SAME)
    assert where(play(same, published(), pod(0, 1, 5), pod(1, 8))) == [{0: 1}, {0: 4, 1: 4}]
    two = PodRequest("two", 0, (ContainerRequest(3, POOL), ContainerRequest(2, POOL)))
    outcome = play(same, published(), two, pod(1, 3), pod(1, 2))
    assert outcome.entries[0].given == ({0: 3}, {1: 2})
    assert where(outcome)[1:] == [{}, {1: 2}]


def test_what_a_pod_reserves_by_default_limits_how_many_fit() -> None:
    places = Sharing(default=ShareTerms(POOL, 100))
    outcome = play(places, published(default=20 * GIB), *[pod(0) for _ in range(5)])
    assert [entry.end for entry in outcome.entries] == [PodOutcome.PLACED] * 4 + [
        PodOutcome.WAITING
    ]


pods = st.lists(
    st.builds(
        PodRequest,
        name=st.just("pod"),
        at=st.integers(0, 90).map(float),
        containers=st.lists(
            st.builds(ContainerRequest, st.integers(1, 40), st.just(POOL)), min_size=1, max_size=2
        ).map(tuple),
        duration=st.none() | st.sampled_from([0.0, 0.05, 3.0, 11.5, 60.0, 200.0]),
    ),
    max_size=25,
)
clusters = st.builds(
    Cluster,
    st.builds(
        Sharing,
        default=st.builds(
            ShareTerms, st.just(POOL), st.integers(1, 5), share_memory=st.sampled_from([0, GIB])
        ),
        multiple=st.sampled_from([Multiple.SAME, Multiple.DISTINCT]),
    ),
    st.lists(
        st.integers(1, 3).map(lambda count: tuple(map(gpu, range(count)))), min_size=1, max_size=3
    ).map(tuple),
    dra=st.builds(published, st.none() | st.sampled_from(Placement), every=st.just(10.0)),
)


@given(clusters, pods)
def test_no_pod_fails_and_no_gpu_is_overfull(cluster: Cluster, asked: list[PodRequest]) -> None:
    empty = plans(cluster)
    there = list(empty.values())
    requests = [
        each
        for each in asked
        if never_fits(there, [(one.resource, one.shares) for one in each.containers]) is None
    ]
    outcome = simulate(cluster, requests)
    assert [entry.request for entry in outcome.entries] == requests
    size = {(one.node, one.position): one.shares for one in outcome.histories}
    for history in outcome.histories:
        assert all(0 <= use.held <= history.shares for use in history.uses)
    held: Counter[tuple[int, int]] = Counter()
    for entry in outcome.entries:
        assert not entry.failures
        if entry.node is not None:
            for container, given in zip(entry.request.containers, entry.given, strict=True):
                assert sum(given.values()) == container.shares
            if entry.ended is None:
                held.update({(entry.node, position): n for position, n in entry.gpus.items()})
    for entry in outcome.entries:
        if entry.end is PodOutcome.WAITING and len(entry.request.containers) == 1:
            (wanted,) = entry.request.containers
            free = {each: size[each] - held[each] for each in size}
            for node, gpus in enumerate(cluster.nodes):
                room = [left for (number, _), left in free.items() if number == node]
                pool = empty[gpus].pool(POOL)
                assert pool is not None
                assert not fits(pool, room, wanted.shares)


# A load like that of a public trace of fractional GPU pods. ---------------------------------------

NODES, EACH = 4, 8


def trace_like(seed: int, offered: float, count: int = 1500) -> list[PodRequest]:
    """Four of five ask for 47 to 100 hundredths of a GPU, the others for 5 to 46, for 300 s."""
    chance, at, found = random.Random(seed), 0.0, []  # noqa: S311 - a load, no secret
    apart = 300.0 * 63.9 / (offered * 100 * NODES * EACH)
    for _ in range(count):
        at += chance.expovariate(1 / apart)
        large = chance.random() < 0.8
        shares = chance.randint(47, 100) if large else chance.randint(5, 46)
        found.append(pod(round(at, 3), shares, round(chance.expovariate(1 / 300), 3)))
    return found


def asked_of(request: PodRequest) -> int:
    return request.containers[0].shares


def exact_best_fit(pods: Sequence[PodRequest]) -> float:
    """All waits, where each pod gets the fullest GPU that it fits on, of the emptiest node."""
    free = [[100] * EACH for _ in range(NODES)]
    events = [(each.at, 1, number) for number, each in enumerate(pods)]
    heapify(events)
    waiting: list[int] = []
    given: dict[int, tuple[int, int]] = {}
    total = 0.0
    while events:
        now, comes, number = heappop(events)
        if comes:
            waiting.append(number)
        else:
            node, position = given[number]
            free[node][position] += asked_of(pods[number])
        for each in list(waiting):
            asked = asked_of(pods[each])
            nodes = [node for node in range(NODES) if max(free[node]) >= asked]
            if nodes:
                node = max(nodes, key=lambda node: sum(free[node]))
                _, position = min((left, at) for at, left in enumerate(free[node]) if left >= asked)
                free[node][position] -= asked
                given[each] = node, position
                total += now - pods[each].at
                heappush(events, (now + (pods[each].duration or 0), 0, each))
                waiting.remove(each)
    return total


@pytest.mark.slow
def test_on_a_trace_like_load_first_fit_waits_at_most_a_tenth_longer_than_best_fit() -> None:
    hundredths = Sharing(default=ShareTerms(POOL, share_memory=400 * 2**20))
    played = best = 0.0
    for seed, offered in ((1, 0.66), (2, 0.66), (3, 0.7)):
        pods = trace_like(seed, offered)
        outcome = play(hundredths, published(), *pods, gpus=EACH, nodes=NODES)
        assert {entry.end for entry in outcome.entries} == {PodOutcome.PLACED}
        assert not any(entry.failures for entry in outcome.entries)
        played += sum(waited(entry, outcome.end) for entry in outcome.entries)
        best += exact_best_fit(pods)
    assert 0 < played <= 1.1 * best


# The command. -------------------------------------------------------------------------------------


def run(folder: Path, config: str, *more: str) -> tuple[int, str]:
    (folder / "gpus.toml").write_text(GPUS)
    (folder / "sgpud.toml").write_text(config)
    (folder / "pods.toml").write_text('[[pod]]\nmemory = "10GiB"\ncount = 5\n')
    out, err = io.StringIO(), io.StringIO()
    files = ["--gpus", str(folder / "gpus.toml"), "--config", str(folder / "sgpud.toml")]
    status = main(["simulate", str(folder / "pods.toml"), *files, *more], {}, out, err)
    assert err.getvalue() == ""
    return status, out.getvalue()


def test_both_apis_are_played_side_by_side(tmp_path: Path) -> None:
    config = '[sharing]\nshare_memory = "1GiB"\nplacement = "spread"\n'
    status, text = run(tmp_path, config, "--api", "device-plugin", "--api", "dra")
    assert status == 0
    assert "sgpud.toml, dra: 1 node, 2 GPUs, placement packed, DRA, reordered every 10s at" in text
    assert "are played as a claim for one GPU, since with DRA `limits: n` is n GPUs" in text
    assert "Side by side" in text


def test_the_api_is_that_of_the_configuration(tmp_path: Path) -> None:
    config = '[kubelet]\napi = "dra"\n[dra]\norder = "fixed"\nreorder_every = "30s"\n'
    _, text = run(tmp_path, config, "--json")
    found: dict[str, Any] = json.loads(text)
    (only,) = found["runs"]
    settings = {"api": "dra", "placement": "fixed", "reorder_every": 30.0}
    assert only["settings"] == settings
    assert only["pods"][4]["gpus"] == {"0": 1}
