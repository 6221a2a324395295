"""What becomes of pods in a simulation: placement, waiting, failing, and the sums."""

from __future__ import annotations

from itertools import pairwise

import pytest
from attrs import evolve

from sgpud.cli.simulate.engine.rooms import never_fits
from sgpud.cli.simulate.engine.simulation import LONGEST, MADE_AGAIN, plans, simulate
from sgpud.cli.simulate.engine.summary import sums, waited, waits
from sgpud.cli.simulate.engine.values import (
    Cluster,
    ContainerRequest,
    PodOutcome,
    PodRequest,
    SimulationResult,
    WaitReason,
)
from sgpud.core.sharing.limits import LimitError
from sgpud.core.sharing.rules import Advertise, GpuRule, Multiple, Placement, ShareTerms, Sharing
from tests.core.values import GIB, OTHER, POOL, gpu, sharing

MEMORY = Sharing(default=ShareTerms(POOL, share_memory=GIB))
ALL = evolve(MEMORY, advertise=Advertise.ALL)


def pod(
    at: float, shares: int = 1, duration: float | None = None, resource: str = POOL
) -> PodRequest:
    return PodRequest(f"pod at {at}", at, (ContainerRequest(shares, resource),), duration)


def play(
    config: Sharing, *pods: PodRequest, gpus: int = 2, nodes: int = 1, tries: int = 10
) -> SimulationResult:
    return simulate(Cluster(config, (tuple(gpu(n) for n in range(gpus)),) * nodes, tries), pods)


def where(outcome: SimulationResult) -> list[tuple[int | None, dict[int, int]]]:
    return [(entry.node, dict(entry.gpus)) for entry in outcome.entries]


def test_spread_alternates_and_packed_fills_one_gpu_first() -> None:
    pods = [pod(at) for at in range(4)]
    spread = play(sharing(2), *pods)
    packed = play(sharing(2, placement=Placement.PACKED), *pods)
    assert [list(gpus) for _, gpus in where(spread)] == [[0], [1], [0], [1]]
    assert [list(gpus) for _, gpus in where(packed)] == [[0], [0], [1], [1]]


def test_a_pod_without_room_waits_until_another_ends() -> None:
    outcome = play(sharing(1), pod(0, duration=50), pod(1), pod(2, duration=5))
    assert [entry.end for entry in outcome.entries] == [PodOutcome.PLACED] * 3
    assert outcome.entries[2].placed == 50
    assert outcome.entries[2].ended == 55
    assert outcome.entries[2].waits == (WaitReason.FULL,)
    assert waited(outcome.entries[2], outcome.end) == 48
    assert where(outcome)[2] == where(outcome)[0]


def test_a_pod_that_never_fits_is_reported_as_waiting() -> None:
    outcome = play(sharing(1), pod(0), pod(0), pod(3))
    assert [entry.end for entry in outcome.entries] == [
        PodOutcome.PLACED,
        PodOutcome.PLACED,
        PodOutcome.WAITING,
    ]
    assert outcome.entries[2].waits == (WaitReason.FULL,)
    assert waits(outcome) == {"full": 1, "split": 0, "unseen": 0}


def test_pods_are_served_in_order_and_one_that_does_not_fit_blocks_no_other() -> None:
    config = sharing(4, multiple=Multiple.ANY)
    outcome = play(
        config, pod(0, 8, duration=100), pod(1, 8, 10), pod(2, 1, 10), pod(3, 1, 10), gpus=2
    )
    placed = [entry.placed for entry in outcome.entries]
    assert placed == [0, 100, 110, 110]
    small_first = play(config, pod(0, 6, 100), pod(1, 8, 10), pod(2, 1, 10), gpus=2)
    assert [entry.placed for entry in small_first.entries] == [0, 100, 2]


def test_the_scheduler_picks_the_node_with_the_most_free_shares() -> None:
    outcome = play(sharing(2), pod(0, 1, 100), pod(1), pod(2), pod(3), nodes=2)
    assert [node for node, _ in where(outcome)] == [0, 1, 0, 1]


def test_a_scheduler_that_counts_only_makes_a_split_fail_on_the_node_until_the_bound() -> None:
    """Six and six of ten are free: it binds eight, and no GPU has them."""
    outcome = play(
        evolve(ALL, reserve_memory=30 * GIB), pod(0, 4), pod(1, 7), pod(2, 6, 40), tries=3
    )
    entry = play(
        evolve(ALL, reserve_memory=30 * GIB), pod(0, 6), pod(1, 6), pod(2, 5), tries=3
    ).entries[2]
    assert [one.end for one in outcome.entries] == [PodOutcome.PLACED] * 3
    assert entry.end is PodOutcome.FAILED
    assert [failure.rule for failure in entry.failures] == ["room"] * 3
    assert [failure.at for failure in entry.failures] == [2, 3, 5]
    assert "8GiB" not in entry.failures[0].reason
    assert "4 (4GiB)" in entry.failures[0].reason
    assert entry.waits == ()


def test_a_controller_waits_longer_with_each_failure() -> None:
    entry = play(
        evolve(ALL, reserve_memory=30 * GIB), pod(0, 6), pod(1, 6), pod(2, 5), tries=10
    ).entries[2]
    times = [failure.at for failure in entry.failures]
    apart = [after - before for before, after in pairwise(times)]
    assert apart[0] == MADE_AGAIN
    assert all(later in (2 * before, LONGEST) for before, later in pairwise(apart))
    assert apart[-1] == LONGEST


def test_with_advertise_largest_a_pod_waits_instead_of_being_split() -> None:
    outcome = play(evolve(MEMORY, reserve_memory=30 * GIB), pod(0, 6), pod(30, 6), pod(60, 5))
    last = outcome.entries[2]
    assert (last.end, last.failures, last.waits) == (PodOutcome.WAITING, (), (WaitReason.SPLIT,))
    assert last.split


def test_the_next_gpu_is_visible_only_after_the_next_report() -> None:
    """Node status comes every 10 s: until then the scheduler knows of the full GPU alone."""
    outcome = play(MEMORY, pod(1, 40), pod(2, 40))
    late = outcome.entries[1]
    assert late.placed == 10
    assert late.waits == (WaitReason.UNSEEN,)
    assert where(outcome) == [(0, {0: 40}), (0, {1: 40})]


def test_the_scheduler_counts_shares_of_an_ended_pod_until_the_next_report() -> None:
    """The ended pod's shares are requested no more, and still listed: their sum fits nowhere."""
    config = evolve(MEMORY, reserve_memory=30 * GIB)
    # GPU 0 has 9 of 10 from 101 s on, and 10 when the pod with one share ends.
    outcome = play(config, pod(0, 8, 101), pod(20, 8), pod(40, 1, 80), pod(101.4, 10))
    last = outcome.entries[3]
    assert last.end is PodOutcome.PLACED
    assert last.failures
    assert {failure.rule for failure in last.failures} <= {"room", "kubelet"}
    assert last.placed is not None
    assert 120 <= last.placed <= 120 + 60


def test_pools_are_simulated_side_by_side() -> None:
    config = sharing(1, GpuRule("1", OTHER, 3))
    outcome = play(config, pod(0), pod(1, resource=OTHER), pod(2), pod(3, resource=OTHER))
    assert where(outcome) == [(0, {0: 1}), (0, {1: 1}), (None, {}), (0, {1: 1})]


@pytest.mark.parametrize(
    ("config", "shares", "said"),
    [
        (sharing(4), 3, "2 GPUs"),
        (sharing(4, multiple=Multiple.SAME), 5, "up to 4 shares"),
        (sharing(4, multiple=Multiple.ANY), 9, '"any"'),
        (sharing(4, multiple=Multiple.REFUSE), 2, '"refuse"'),
        (MEMORY, 41, "up to 40 shares"),
    ],
)
def test_a_pod_that_can_never_fit_is_rejected_up_front(
    config: Sharing, shares: int, said: str
) -> None:
    made = list(plans(Cluster(config, ((gpu(0), gpu(1)),))).values())
    assert said in (never_fits(made, [(POOL, shares)]) or "")
    assert never_fits(made, [(POOL, shares - 1)]) is None
    assert OTHER in (never_fits(made, [(OTHER, 1)]) or "")


def test_a_configuration_beyond_the_kubelets_limit_is_refused() -> None:
    with pytest.raises(LimitError):
        play(sharing(10_000), gpus=8)


def test_the_averages_of_a_gpu_cover_the_whole_time() -> None:
    large = evolve(pod(50, 2, 50), containers=(ContainerRequest(2, POOL, 41 * GIB),))
    requests = [pod(0, 4, 50), large]
    outcome = play(sharing(4, multiple=Multiple.SAME), *requests, gpus=1)
    assert (outcome.start, outcome.end) == (0, 100)
    found = sums(outcome, outcome.histories[0], 4)
    assert (found.peak_shares, found.mean_shares) == (4, 3)
    assert (found.peak_memory, found.mean_memory) == (41 * GIB, 40.5 * GIB)
    assert found.over == 50
    assert found.picture == pytest.approx((1, 1, 0.5, 0.5))


def test_without_pods_the_outcome_is_empty() -> None:
    outcome = play(sharing(4))
    assert outcome.entries == ()
    assert sums(outcome, outcome.histories[0], 2).picture == (0, 0)


def test_a_pod_of_zero_duration_holds_and_frees_its_share() -> None:
    outcome = play(sharing(1), pod(0, duration=0), pod(0, duration=0), gpus=1)
    assert [entry.ended for entry in outcome.entries] == [0, 0]
