"""The slice: valid for every configuration, in the order that makes first fit best fit."""

from __future__ import annotations

import re

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.dra.claims import MEMORY, SHARES
from sgpud.core.dra.prepare import prepare
from sgpud.core.dra.slices import (
    LONGEST_NAME,
    NO_EXECUTE,
    NO_SCHEDULE,
    Capacity,
    DraSettings,
    Taint,
    device_name,
    devices,
    slice_problem,
)
from sgpud.core.health.node_health import cordoned, probe_failed
from sgpud.core.planning.full_guard import FullState
from sgpud.core.sharing.rules import Placement
from tests.core.dra.worlds import POOL, amount, claim, memory, of_node, places
from tests.core.values import GIB, fallen, gpu, mig, node, sharing, uuid

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def test_a_device_is_named_by_its_uuid() -> None:
    assert [one.name for one in of_node(places())] == [uuid(0).lower(), uuid(1).lower()]


@given(st.text(min_size=1, max_size=80), st.text(min_size=1, max_size=80))
def test_every_uuid_makes_a_label_of_its_own(one: str, two: str) -> None:
    for text in (one, two):
        assert LABEL.fullmatch(device_name(text))
        assert len(device_name(text)) <= LONGEST_NAME
    if one.lower() != two.lower():
        assert device_name(one) != device_name(two)


@given(
    st.integers(1, 1000), st.integers(0, 2**41), st.integers(0, 2**41), st.sampled_from([0, GIB])
)
def test_each_policy_is_one_that_the_api_server_takes(
    factor: int, total: int, default: int, size: int
) -> None:
    """Rules of resource.k8s.io/v1: default and value in range, on a step, room for one step."""
    of = (
        memory(size, [gpu(0, memory=total)])
        if size
        else node(sharing(factor), [gpu(0, memory=total)])
    )
    for device in devices(of, DraSettings(default)):
        for capacity in device.capacities.values():
            assert 0 <= capacity.least <= capacity.default <= capacity.value
            if capacity.step is not None:
                assert (capacity.default - capacity.least) % capacity.step == 0
                assert capacity.least + capacity.step <= capacity.value
        assert all(
            len(value) <= 64 for value in device.attributes.values() if isinstance(value, str)
        )


def test_one_share_a_gpu_has_no_step() -> None:
    (device,) = of_node(places(factor=1, count=1))
    assert device.capacities[SHARES] == Capacity(1, 1, 1, None)


def test_memory_shares_reserve_one_share_by_default() -> None:
    first = of_node(memory(GIB))[0]
    assert first.capacities[MEMORY] == Capacity(40 * GIB, GIB, 0, 2**20)


def test_a_mig_instance_says_whose_it_is() -> None:
    instance = mig(gpu(0), 3)
    (device,) = of_node(node(sharing(), [instance]))
    assert device.attributes["type"] == "mig"
    assert device.attributes["parentUuid"] == uuid(0)


def test_the_fullest_gpu_comes_first_when_packed_and_last_when_spread() -> None:
    of = memory(GIB, [gpu(0), gpu(1), gpu(2)])
    names = [one.name for one in of_node(of)]
    used = prepare(claim("a", (names[1], amount(9 * GIB))), POOL, of_node(of), {}, (), 0)
    for placement, order in ((Placement.PACKED, [1, 0, 2]), (Placement.SPREAD, [0, 2, 1])):
        found = devices(of, DraSettings(memory_placement=placement), [used])
        assert [one.name for one in found] == [names[at] for at in order]
        found = devices(places(count=3), DraSettings(placement=placement), [used])
        assert [one.name for one in found] == [names[at] for at in order]
    assert [one.name for one in devices(of, DraSettings(), [used])] == names


def test_facts_become_taints() -> None:
    of = places()
    full = {uuid(1): FullState(0.0, full=True, reason="full")}
    found = {
        "lost": fallen(of, uuid(1)),
        "cordoned": cordoned(of, uuid(1), on=True),
        "full": evolve(of, watches=full),
    }
    taints = {name: {d.uuid: d.taints for d in of_node(of)} for name, of in found.items()}
    assert all(each[uuid(0)] == () for each in taints.values())
    assert [one.key for one in taints["lost"][uuid(1)]] == ["health"]
    assert taints["cordoned"][uuid(1)] == (Taint("cordoned", "operator", NO_SCHEDULE),)
    assert taints["full"][uuid(1)] == (Taint("full", "measured", NO_SCHEDULE),)
    unknown = of_node(probe_failed(of, "no driver", driver_gone=False))
    assert {one.taints for one in unknown} == {(Taint("health", "unknown"),)}


def test_eviction_is_a_taint_of_its_own() -> None:
    found = devices(fallen(places(), uuid(1)), DraSettings(evict_unhealthy=True))
    effects = {one.uuid: {taint.effect for taint in one.taints} for one in found}
    assert effects == {uuid(0): set(), uuid(1): {NO_SCHEDULE, NO_EXECUTE}}


@pytest.mark.parametrize("gone", [True, False])
def test_a_gpu_with_claims_is_retired_and_not_removed(*, gone: bool) -> None:
    of = places()
    names = {one.uuid: one.name for one in of_node(of)}
    used = prepare(claim("a", (names[uuid(1)], amount(0))), POOL, of_node(of), {}, (), 0)
    assert of.sharing is not None
    less = (
        evolve(of, gpus=(gpu(0),))
        if gone
        else evolve(of, sharing=evolve(of.sharing, deny=(uuid(1),)))
    )
    assert [one.uuid for one in of_node(less)] == [uuid(0)]
    kept = {one.uuid: one for one in of_node(less, [used])}
    assert kept[uuid(1)].name == names[uuid(1)]
    assert Taint("retired", "not-shared") in kept[uuid(1)].taints


def test_too_many_gpus_for_one_slice_are_named() -> None:
    found = of_node(node(sharing(), [gpu(number) for number in range(65)]))
    assert "65 GPUs, a ResourceSlice holds 64" in slice_problem(found)
    assert slice_problem(found[:64]) == ""
