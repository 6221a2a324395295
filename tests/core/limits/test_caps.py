"""Memory caps: how much, for whom, and how a container is told."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.allocation.allocate import allocate, index
from sgpud.core.allocation.injection import GpuAccess, Injection, NodeHost
from sgpud.core.intset import IntSet
from sgpud.core.limits.caps import (
    MOST_CAPS,
    CapTerms,
    cap_device,
    cap_of_device,
    cap_spec,
    knows_limits,
    memory_cap,
    possible_caps,
)
from sgpud.core.limits.settings import LimitSettings, MemoryLimits
from sgpud.core.planning.holdings import CheckpointState
from sgpud.core.planning.node import Node
from sgpud.core.sharing.rules import InjectionMethod, InjectionSettings, ShareTerms, Sharing
from sgpud.core.sharing.share_id import memory_stem, share_id
from tests.core.values import (
    GIB,
    POOL,
    checkpoint,
    gpu,
    grant,
    holder,
    mig,
    planned,
    pool_of,
)
from tests.core.values import node as known_node

MIB = 2**20
ONE = gpu(0)
DRIVER = "615.71.09"
HOST = NodeHost(
    runtime="found",
    cgroup_problem="",
    unlimited="",
    access={ONE.uuid: GpuAccess(cdi=f"nvidia.com/gpu={ONE.uuid}", limited=True)},
)
REQUEST, LIMIT = "NVIDIA_GPU_MEMORY_REQUEST", "NVIDIA_GPU_MEMORY_LIMIT"


def limited(
    method: InjectionMethod = InjectionMethod.NVIDIA_RUNTIME,
    *,
    size: int = GIB,
    known: CheckpointState | None = None,
    **facts: Any,
) -> Node:
    """A node with memory shares whose driver and host can limit memory."""
    sharing = Sharing(default=ShareTerms(POOL, 4, size), injection=InjectionSettings(method))
    given = {"driver": DRIVER, "host": HOST, **facts}
    return evolve(known_node(sharing, [ONE], known), **given)


def given_by(of: Node, count: int = 12) -> Injection:
    """What a container with so many shares of the GPU is answered."""
    plan = planned(of)
    pool = pool_of(plan)
    stem = memory_stem(POOL) if pool.memory else ONE.uuid
    ids = [share_id(stem, number) for number in range(count)]
    return allocate(plan, pool, index(pool), ids).answer


@pytest.mark.parametrize(
    ("driver", "knows"),
    [
        ("615.71.09", True),
        ("1000.1", True),
        ("614.99.99", False),
        ("580.65.06", False),
        ("", False),
        ("615", False),
        ("x615.1", False),
    ],
)
def test_drivers_from_615_on_can_limit_memory(driver: str, knows: bool) -> None:  # noqa: FBT001
    assert knows_limits(driver) is knows


def test_the_cap_is_what_the_shares_stand_for_in_mib_times_the_factor() -> None:
    assert memory_cap([(ONE, 12 * GIB)], CapTerms(1.0)) == 12 * 1024
    assert memory_cap([(ONE, 12 * GIB)], CapTerms(1.5)) == 18 * 1024
    assert memory_cap([(ONE, 12 * GIB)], CapTerms(4.0)) == 40 * 1024, "not more than the GPU has"
    assert memory_cap([(ONE, GIB), (gpu(1), 2 * GIB)], CapTerms(1.0)) == 2 * 1024, (
        "one value for all GPUs"
    )


def test_what_promises_no_memory_or_cannot_be_limited_gets_no_cap() -> None:
    assert memory_cap([], CapTerms(1.0)) == 0
    assert memory_cap([(ONE, 0)], CapTerms(1.0)) == 0
    assert memory_cap([(ONE, GIB), (gpu(1), 0)], CapTerms(1.0)) == 0
    assert memory_cap([(mig(ONE, 1), GIB)], CapTerms(1.0)) == 0
    assert memory_cap([(evolve(ONE, fake=True), GIB)], CapTerms(1.0)) == 0
    assert memory_cap([(evolve(ONE, memory=None), GIB)], CapTerms(1.0)) == 0


@given(st.integers(1, 80 * GIB), st.floats(1.0, 4.0))
def test_no_cap_is_above_the_grant_times_the_factor_or_above_the_gpu(
    size: int, factor: float
) -> None:
    cap = memory_cap([(ONE, size)], CapTerms(factor)) * MIB
    assert cap <= min(size * factor, 40 * GIB)


def test_a_container_by_the_runtime_gets_the_two_variables() -> None:
    for method in (InjectionMethod.NVIDIA_RUNTIME, InjectionMethod.VOLUME_MOUNTS):
        envs = given_by(limited(method)).envs
        assert (envs[REQUEST], envs[LIMIT]) == ("0", str(12 * 1024))


def test_by_cdi_it_gets_a_device_where_there_is_one_for_its_size() -> None:
    host = evolve(HOST, caps=frozenset({12 * 1024}))
    answer = given_by(limited(InjectionMethod.CDI, host=host))
    assert answer.cdi == (f"nvidia.com/gpu={ONE.uuid}", "deepomatic.com/memory-limit=12288MiB")
    assert not {REQUEST, LIMIT} & set(answer.envs)
    other = given_by(limited(InjectionMethod.CDI, host=host), 3)
    assert other.cdi == (f"nvidia.com/gpu={ONE.uuid}",)
    assert other.envs[LIMIT] == str(3 * 1024)


@pytest.mark.parametrize(
    "of",
    [
        limited(driver="580.65.06"),
        limited(driver=""),
        limited(host=evolve(HOST, cgroup_problem="cgroup v1")),
        limited(limits=LimitSettings(MemoryLimits.OFF)),
        limited(InjectionMethod.DEVICE_NODES),
        limited(size=0),
    ],
    ids=["old driver", "unknown driver", "cgroup v1", "off", "device-nodes", "places"],
)
def test_without_a_limit_that_can_hold_there_is_none(of: Node) -> None:
    # Where the driver does not know the call, the toolkit's hook fails, and with it the container.
    of = evolve(of, host=evolve(of.host, caps=frozenset({1024})))
    answer = given_by(of, 1)
    assert not {REQUEST, LIMIT} & set(answer.envs)
    assert not any("memory-limit" in name for name in answer.cdi)


def test_there_is_a_device_for_every_size_that_can_be_asked_for() -> None:
    of = limited(InjectionMethod.CDI)
    caps = of.caps()
    assert caps == frozenset(1024 * count for count in range(1, 41))
    of = evolve(of, host=evolve(HOST, caps=caps))
    for count in range(1, 41):
        assert given_by(of, count).cdi[1:] == (f"deepomatic.com/memory-limit={count * 1024}MiB",)


def test_a_device_stays_for_as_long_as_a_container_has_it() -> None:
    has = evolve(holder({ONE.uuid: IntSet.of([1])}), cap=777)
    of = limited(known=checkpoint(has), driver="580.1", host=evolve(HOST, caps=frozenset({1, 777})))
    assert of.caps() == {777}
    assert evolve(of, checkpoint=checkpoint()).caps() == frozenset()
    waits = evolve(of, grants=(grant({ONE.uuid: IntSet.of([2])}),))
    assert waits.caps() == {1, 777}, "a grant may have any of them"
    assert evolve(of, checkpoint=checkpoint(problem="unreadable")).caps() == {1, 777}


def test_the_number_of_devices_is_bounded() -> None:
    assert (
        len(possible_caps({(ONE, MIB): 10_000, (gpu(1), MIB + 1): 10_000}, CapTerms(1.0)))
        <= MOST_CAPS
    )


@given(st.integers(1, 10**8))
def test_a_device_s_name_is_its_cap(cap: int) -> None:
    assert cap_of_device(f"deepomatic.com/memory-limit={cap_device(cap)}") == cap
    assert cap_of_device(f"nvidia.com/gpu={cap_device(cap)}") == 0


def test_each_device_sets_both_variables() -> None:
    spec = cap_spec([2048, 1024])
    assert spec["kind"] == "deepomatic.com/memory-limit"
    assert spec["devices"] == [
        {
            "name": f"{cap}MiB",
            "containerEdits": {"env": [f"{REQUEST}=0", f"{LIMIT}={cap}"]},
        }
        for cap in (1024, 2048)
    ]
