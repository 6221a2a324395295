"""Prepare: the driver adds up once more, and says what it refuses."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.allocation.injection import InjectionChoice, NodeHost
from sgpud.core.dra.allocator import DeviceRequest, allocate_first_fit
from sgpud.core.dra.claims import MEMORY, SHARES, AllocatedClaim, PreparedClaim, consumption
from sgpud.core.dra.prepare import PrepareRefusedError, injections, prepare
from sgpud.core.dra.slices import Device
from sgpud.core.limits.caps import CapTerms
from sgpud.core.sharing.rules import InjectionMethod
from tests.core.dra.worlds import POOL, amount, claim, memory, of_node, places
from tests.core.values import GIB, gpu, uuid

DEVICES = of_node(memory(GIB))
ONE, TWO = (device.name for device in DEVICES)


def prepared(asked: AllocatedClaim, *before: PreparedClaim) -> PreparedClaim:
    return prepare(asked, POOL, DEVICES, {}, before, 1790000000.5)


def test_a_claim_says_which_gpu_it_has() -> None:
    made = prepared(claim("a", (TWO, amount(12 * GIB))))
    assert made.uuids == {TWO: uuid(1)}
    assert made.since == 1790000000


def test_the_same_claim_is_answered_the_same() -> None:
    first = prepared(claim("a", (ONE, amount(30 * GIB))))
    assert prepared(claim("a", (ONE, amount(30 * GIB))), first) is first


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (claim("a"), "foreign"),
        (claim("a", ("gpu-of-another-node", amount(0))), "device"),
        (claim("a", (ONE, amount(-20 * GIB))), "negative"),
        (claim("a", (ONE, amount(41 * GIB))), "capacity"),
        (claim("a", (ONE, amount(21 * GIB)), (ONE, amount(20 * GIB))), "capacity"),
        (claim("a", (ONE, amount(0, 257))), "capacity"),
    ],
)
def test_what_cannot_be_is_refused(asked: AllocatedClaim, reason: str) -> None:
    with pytest.raises(PrepareRefusedError) as caught:
        prepared(asked)
    assert caught.value.reason == reason


def test_another_nodes_pool_is_refused() -> None:
    made = claim("a", (ONE, amount(0)))
    foreign = evolve(made, shares=tuple(evolve(share, pool="node-2") for share in made.shares))
    with pytest.raises(PrepareRefusedError, match="pool node-2 is not on this node"):
        prepared(foreign)


def test_a_claim_whose_allocation_changed_is_refused() -> None:
    first = prepared(claim("a", (ONE, amount(GIB))))
    with pytest.raises(PrepareRefusedError, match="its allocation has changed"):
        prepared(claim("a", (TWO, amount(GIB))), first)


def test_a_gpu_that_cannot_be_injected_is_refused_with_the_reason() -> None:
    with pytest.raises(PrepareRefusedError, match="no CDI spec"):
        prepare(claim("a", (ONE, amount(0))), POOL, DEVICES, {uuid(0): "no CDI spec"}, (), 0)


def test_a_forced_deletion_does_not_overcommit() -> None:
    """The scheduler has forgotten the claim whose container still runs."""
    first = prepared(claim("a", (ONE, amount(30 * GIB))))
    with pytest.raises(PrepareRefusedError, match="10GiB of 40GiB left"):
        prepared(claim("b", (ONE, amount(20 * GIB))), first)


def test_a_share_that_the_kubelet_lists_three_times_counts_once() -> None:
    made = claim("a", (ONE, amount(30 * GIB)))
    thrice = evolve(made, shares=made.shares * 3)
    assert consumption([prepared(thrice)]) == {uuid(0): amount(30 * GIB)}


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(-GIB, 45 * GIB) | st.none(), st.booleans()),
        max_size=25,
    )
)
def test_nothing_that_the_scheduler_allocates_is_refused_or_overcommitted(
    pods: list[tuple[int, int | None, bool]],
) -> None:
    """First fit over the devices, claims that come and go: every allocation can be prepared."""
    held: list[PreparedClaim] = []
    for number, (count, size, ends) in enumerate(pods):
        if ends and held:
            held.pop(0)
        by_name = {device.uuid: device.name for device in DEVICES}
        used = {by_name[key]: sums for key, sums in consumption(held).items()}
        amounts = None if size is None else {MEMORY: max(0, size)}
        found = allocate_first_fit(DEVICES, used, [DeviceRequest("gpu", count, amounts)])
        if found is None:
            continue
        assert len({device for _, device, _ in found}) == count
        asked = claim(f"c{number}", *((device, consumed) for _, device, consumed in found))
        held.append(prepared(asked, *held))
        for sums in consumption(held).values():
            assert 0 <= sums[MEMORY] <= 40 * GIB


def test_containers_get_the_variables_of_the_device_plugin() -> None:
    choice = InjectionChoice(InjectionMethod.NVIDIA_RUNTIME, "set")
    made = prepared(claim("a", (ONE, amount(12 * GIB)), (TWO, amount(4 * GIB))))
    gpus = {uuid(0): gpu(0), uuid(1): gpu(1)}
    (found,) = injections(made, gpus, {uuid(0): 40, uuid(1): 40}, choice, NodeHost())
    assert found.devices == (ONE, TWO)
    assert dict(found.injection.envs) == {
        "NVIDIA_VISIBLE_DEVICES": f"{uuid(0)},{uuid(1)}",
        "SGPUD_GPU_MEMORY_BYTES": f"{40 * GIB},{40 * GIB}",
        "SGPUD_GPU_UUIDS": f"{uuid(0)},{uuid(1)}",
        "SGPUD_MEMORY_BYTES": f"{12 * GIB},{4 * GIB}",
        "SGPUD_SHARES": "2",
        "SGPUD_SHARES_PER_GPU": "40,40",
        "SGPUD_SINCE": "1790000000",
    }


def test_a_claim_s_containers_get_a_memory_limit_where_it_can_hold() -> None:
    gpus = {uuid(0): gpu(0), uuid(1): gpu(1)}

    def limit(*amounts: int, method: InjectionMethod = InjectionMethod.CDI) -> str | None:
        parts = zip((ONE, TWO), map(amount, amounts), strict=False)
        choice = InjectionChoice(method, "set")
        made, terms = prepared(claim("a", *parts)), CapTerms(1.5)
        (found,) = injections(made, gpus, {}, choice, NodeHost(), terms)
        return found.injection.envs.get("NVIDIA_GPU_MEMORY_LIMIT")

    assert limit(12 * GIB) == str(18 * 1024)
    assert limit(12 * GIB, 4 * GIB) == str(18 * 1024), "one value for all GPUs"
    assert limit(12 * GIB, 0) is None, "the other GPU promises no memory"
    assert limit(12 * GIB, method=InjectionMethod.DEVICE_NODES) is None
    choice = InjectionChoice(InjectionMethod.CDI, "set")
    made = prepared(claim("a", (ONE, amount(12 * GIB))))
    (found,) = injections(made, gpus, {}, choice, NodeHost())
    assert "NVIDIA_GPU_MEMORY_LIMIT" not in found.injection.envs


def test_each_request_gets_variables_of_its_own() -> None:
    choice = InjectionChoice(InjectionMethod.DEVICE_NODES, "set")
    one, two = claim("a", (ONE, amount(0))), claim("b", (TWO, amount(0)), request="other")
    both = evolve(one, shares=(*one.shares, *two.shares))
    found = injections(prepared(both), {uuid(0): gpu(0), uuid(1): gpu(1)}, {}, choice, NodeHost())
    assert [(each.request, each.injection.envs["SGPUD_GPU_UUIDS"]) for each in found] == [
        ("gpu", uuid(0)),
        ("other", uuid(1)),
    ]


def test_places_are_bounded_by_their_number() -> None:
    devices: tuple[Device, ...] = of_node(places(factor=1, count=1))
    first = prepare(claim("a", (devices[0].name, amount(0))), POOL, devices, {}, (), 0)
    with pytest.raises(PrepareRefusedError, match="1 of shares requested, 0 of 1 left"):
        prepare(claim("b", (devices[0].name, amount(0))), POOL, devices, {}, [first], 0)
    assert consumption([first])[uuid(0)][SHARES] == 1
