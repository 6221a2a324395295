"""First fit as the scheduler of Kubernetes 1.36 does it; each vector was seen on a real one."""

from __future__ import annotations

import pytest

from sgpud.core.dra.allocator import DeviceRequest, allocate_first_fit, consumed
from sgpud.core.dra.claims import MEMORY, SHARES
from sgpud.core.dra.slices import NONE, Capacity, Device, Taint
from tests.core.values import GIB

MI = 2**20


def device(name: str, *taints: Taint, shares: int = 10, memory: int = 10 * GIB) -> Device:
    capacities = {
        MEMORY: Capacity(memory, 0, 0, MI),
        SHARES: Capacity(shares, 1, 1, 1 if shares > 1 else None),
    }
    return Device(name, name, {}, capacities, taints)


THREE = tuple(device(f"gpu-{number}") for number in range(3))


def taken(
    devices: tuple[Device, ...], used: dict[str, dict[str, int]], *requests: DeviceRequest
) -> list[tuple[str, str]] | None:
    found = allocate_first_fit(devices, used, requests)
    return None if found is None else [(request, name) for request, name, _ in found]


def test_ten_pods_of_one_share_all_get_the_first_gpu() -> None:
    used: dict[str, dict[str, int]] = {}
    for number in range(10):
        assert taken(THREE, used, DeviceRequest("c")) == [("c", "gpu-0")]
        used["gpu-0"] = {SHARES: number + 1}
    assert taken(THREE, used, DeviceRequest("c", 2)) == [("c", "gpu-1"), ("c", "gpu-2")]
    assert taken(THREE, used, DeviceRequest("c", 3)) is None


def test_n_devices_of_one_request_are_n_gpus() -> None:
    assert taken(THREE, {}, DeviceRequest("c", 3)) == [(("c"), f"gpu-{n}") for n in range(3)]
    assert taken(THREE, {}, DeviceRequest("c", 4)) is None


def test_two_containers_may_share_a_gpu() -> None:
    found = taken(THREE, {}, DeviceRequest("c0"), DeviceRequest("c1"))
    assert found == [("c0", "gpu-0"), ("c1", "gpu-0")]
    found = taken(THREE, {}, DeviceRequest("c0", 2), DeviceRequest("c1", 2))
    assert found == [("c0", "gpu-0"), ("c0", "gpu-1"), ("c1", "gpu-0"), ("c1", "gpu-1")]


@pytest.mark.parametrize(
    ("asked", "comes_to"),
    [
        (1, MI),
        (2**30 + 1, 1025 * MI),
        (1_500_000_000, 1431 * MI),
        (2**29, 512 * MI),
        (-20 * GIB, 0),
        (0, 0),
        (None, 0),
    ],
)
def test_amounts_are_rounded_up_to_the_step(asked: int | None, comes_to: int) -> None:
    assert consumed(Capacity(40 * GIB, 0, 0, MI), asked) == comes_to


def test_no_share_asked_is_one_share_taken() -> None:
    assert consumed(Capacity(10, 1, 1, 1), 0) == 1


def test_what_asks_for_more_or_for_something_else_waits() -> None:
    assert taken(THREE, {}, DeviceRequest("c", 1, {MEMORY: 10 * GIB + 1})) is None
    assert taken(THREE, {}, DeviceRequest("c", 1, {"bandwidth": 1})) is None


def test_a_taint_keeps_a_pod_away_unless_it_is_tolerated_or_information() -> None:
    devices = (device("gpu-0", Taint("health", "reset")), device("gpu-1", Taint("xid", "13", NONE)))
    assert taken(devices, {}, DeviceRequest("c")) == [("c", "gpu-1")]
    assert taken(devices, {}, DeviceRequest("c", tolerates=True)) == [("c", "gpu-0")]
