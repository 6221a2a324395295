"""What a pod may use of each GPU, and what is to be done for exactly that to be in force."""

from __future__ import annotations

import pytest
from attrs import evolve

from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import CapTerms
from sgpud.core.limits.pod_caps import FoundCap, changes, pod_caps
from sgpud.core.planning.holdings import Holder
from tests.core.values import GIB, gpu, mig, uuid

POOL, STEM = "deepomatic.com/shared-gpu-memory", "deepomatic.com-12345678"
A, B = uuid(0), uuid(1)
GPUS = {A: gpu(0), B: gpu(1)}
ONE = CapTerms()


def holds(name: str, *numbers: int, on: str = A, size: int = GIB, at: float = 0.0) -> Holder:
    shares = {STEM: IntSet.of(numbers)}
    return Holder("pod", name, POOL, shares, {}, {on: size} if size else {}, at, gpu=on)


def test_the_containers_of_a_pod_add_up() -> None:
    assert pod_caps([holds("a", 0, 1), holds("b", 2)], GPUS, ONE) == {A: 3 * GIB}
    assert pod_caps([holds("a", 0), holds("b", 1, on=B)], GPUS, ONE) == {A: GIB, B: GIB}
    assert pod_caps([], GPUS, ONE) == {}
    places = holds("c", 9, on=B, size=0)
    assert pod_caps([holds("a", 0), places], GPUS, ONE) == {A: GIB}, "they promise no memory"


def test_of_init_containers_the_larger_phase_counts() -> None:
    """The kubelet gives what an init container held to those that come later."""
    init = holds("init", 0, 1, 2, 3, at=1.0)
    assert pod_caps([init, holds("a", 0, 1, at=2.0)], GPUS, ONE) == {A: 4 * GIB}
    later = [holds("a", 0, 1, 2, 3, at=2.0), holds("b", 4, 5, at=2.0)]
    assert pod_caps([init, *later], GPUS, ONE) == {A: 6 * GIB}


def test_each_container_that_runs_at_a_time_has_a_context() -> None:
    terms = CapTerms(2.0, GIB // 2)
    assert pod_caps([holds("a", 0, 1), holds("b", 2)], GPUS, terms) == {A: 7 * GIB}
    handed = [holds("init", 0, 1, 2, at=1.0), holds("a", 0, at=2.0), holds("b", 1, at=2.0)]
    assert pod_caps(handed, GPUS, terms) == {A: 7 * GIB}


def test_a_share_on_other_terms_counts_as_the_larger() -> None:
    assert pod_caps([holds("a", 0), holds("b", 0, size=2 * GIB)], GPUS, ONE) == {A: 2 * GIB}


def test_no_cap_is_above_the_gpu_and_each_is_in_whole_mib() -> None:
    assert pod_caps([holds("a", *range(50))], GPUS, ONE) == {A: 40 * GIB}
    assert pod_caps([holds("a", 0, size=GIB + 5)], GPUS, ONE) == {A: GIB}


@pytest.mark.parametrize(
    ("found", "holders", "why"),
    [
        (mig(gpu(0), 1), [holds("a", 0)], "MIG instance"),
        (evolve(gpu(0), fake=True), [holds("a", 0)], "fake GPU"),
        (evolve(gpu(0), memory=None), [holds("a", 0)], "does not report its memory"),
        (None, [holds("a", 0)], "gone from this node"),
        (gpu(0), [holds("a", 0), holds("b", 1, size=0)], "promise no memory"),
        (gpu(0), [holds("a", 0, size=5)], "less than 1 MiB"),
    ],
)
def test_why_a_gpu_has_no_cap(found: object, holders: list[Holder], why: str) -> None:
    gpus = {A: found} if found else {}
    cap = pod_caps(holders, gpus, ONE)[A]  # type: ignore[arg-type]
    assert isinstance(cap, str)
    assert why in cap


def cap(pod: str, size: int = GIB, limit: int | None = GIB) -> FoundCap:
    return FoundCap(pod, A, f"/{pod}", size, late=False, limit=limit, used=0)


def test_what_is_missing_is_set_and_what_is_left_over_is_cleared() -> None:
    wanted = {("new", A): GIB, ("kept", A): GIB, ("lost", A): GIB, ("other", A): 2 * GIB}
    found = [cap("kept"), cap("lost", limit=None), cap("other"), cap("ended")]
    todo = changes(wanted, found, {"new"})
    assert todo.set == {("new", A): GIB, ("lost", A): GIB, ("other", A): 2 * GIB}
    assert [one.pod for one in todo.clear] == ["ended"]
    assert changes({("new", A): GIB}, [], ()).set == {}, "its start is yet to come"
