"""Claims as holders, beside those that a device plugin gave shares to."""

from __future__ import annotations

from attrs import evolve

from sgpud.core.dra.claims import MEMORY, SHARES, ClaimPod
from sgpud.core.dra.holders import claims_as_holders, live_plugin_holders, plugin_consumption
from sgpud.core.dra.prepare import prepare
from sgpud.core.dra.slices import DraSettings, Taint, devices
from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import CheckpointState, Holder
from tests.core.dra.worlds import POOL, amount, claim, memory, of_node, places
from tests.core.values import GIB, uuid

RESOURCE = "deepomatic.com/shared-gpu"


def held(count: int, size: int = 0, name: str = "old") -> CheckpointState:
    """Shares of the first GPU that a container has from the device plugin."""
    numbers = {uuid(0): IntSet.span(0, count)}
    sizes = {uuid(0): size} if size else {}
    holder = Holder("uid", "main", RESOURCE, numbers, {uuid(0): 4}, sizes, 1.0, "prod", name)
    return CheckpointState((holder,))


def test_each_pod_of_a_claim_is_a_holder_with_a_name() -> None:
    of = places()
    one, two = (device.name for device in of_node(of))
    asked = claim("c", (one, amount(0)), (two, amount(0)))
    asked = evolve(asked, pods=(ClaimPod("u-1", "web"), ClaimPod("u-2", "job")))
    made = prepare(asked, POOL, of_node(of), {}, (), 5)
    found = claims_as_holders([made], of, CheckpointState()).holders
    assert [(each.namespace, each.name, each.pod, each.container) for each in found] == [
        ("prod", "web", "u-1", "gpu"),
        ("prod", "job", "u-2", "gpu"),
    ]
    assert found[0].shares == {uuid(0): IntSet.span(0, 1), uuid(1): IntSet.span(0, 1)}


def test_places_are_counted_once_and_beside_those_of_the_device_plugin() -> None:
    of = places()
    name = of_node(of)[0].name
    made = [
        prepare(claim(uid, (name, amount(0))), POOL, of_node(of), {}, (), 5) for uid in ("a", "b")
    ]
    found = claims_as_holders(made, of, held(1)).holders
    assert [each.shares[uuid(0)] for each in found] == [IntSet.span(n, n + 1) for n in range(3)]


def test_memory_counts_in_shares_of_the_configured_size() -> None:
    of = memory(GIB)
    asked = claim("a", (of_node(of)[0].name, amount(12 * GIB)))
    (found,) = claims_as_holders(
        [prepare(asked, POOL, of_node(of), {}, (), 5)], of, CheckpointState()
    ).holders
    assert (len(found.shares[uuid(0)]), found.sizes[uuid(0)]) == (12, GIB)


def test_finished_containers_of_a_stale_checkpoint_do_not_count() -> None:
    running = frozenset(holder.pod for holder in held(1).holders)
    gone = evolve(held(1), listed=frozenset(["another"]))
    assert live_plugin_holders(gone).holders == ()
    assert len(live_plugin_holders(evolve(held(1), listed=running)).holders) == 1
    assert len(live_plugin_holders(evolve(gone, doubt="no answer")).holders) == 1
    assert len(live_plugin_holders(held(1)).holders) == 1  # nobody has been asked yet


def test_what_the_device_plugin_gave_is_not_offered() -> None:
    of = places(factor=4)
    others = plugin_consumption(held(3), of)
    assert others == {uuid(0): {MEMORY: 0, SHARES: 3}}
    by_uuid = {each.uuid: each for each in devices(of, DraSettings(), (), others)}
    assert by_uuid[uuid(0)].capacities[SHARES].value == 1
    assert by_uuid[uuid(0)].capacities[SHARES].step is None
    assert by_uuid[uuid(1)].capacities[SHARES].value == 4
    full = devices(of, DraSettings(), (), plugin_consumption(held(4), of))
    assert Taint("full", "device-plugin") in {each.uuid: each for each in full}[uuid(0)].taints


def test_memory_that_the_device_plugin_gave_is_not_offered() -> None:
    of = memory(GIB)
    others = plugin_consumption(held(12, GIB), of)
    by_uuid = {each.uuid: each for each in devices(of, DraSettings(), (), others)}
    assert by_uuid[uuid(0)].capacities[MEMORY].value == 28 * GIB
