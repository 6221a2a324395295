"""Memory shares with the real daemon: what is shown, what is given, what a reload does."""

import pytest

from sgpud.node.store import sealed
from sgpud.testing.kubelet.records import AdmissionError
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.daemon.node import A, B, Node
from tests.daemon.record import WITHIN
from tests.memory.shared import GIB, MEMORY, admit, became, gpu, pool, share, start


def test_a_pod_gets_what_its_shares_stand_for(node: Node, kubelet: StandInKubelet) -> None:
    start(node, kubelet)
    given = admit(kubelet, "twelve", 12)
    assert given.envs["SGPUD_MEMORY_BYTES"] == str(12 * GIB)
    assert given.envs["SGPUD_GPU_UUIDS"] == B


def test_the_node_shows_the_largest_request_that_fits(node: Node, kubelet: StandInKubelet) -> None:
    start(node, kubelet)
    became(kubelet, 40)
    admit(kubelet, "a", 12)
    # Best fit, also here: B, so that A stays whole.
    became(kubelet, 12 + 40)
    assert admit(kubelet, "b", 10).envs["SGPUD_GPU_UUIDS"] == B
    became(kubelet, 22 + 40)
    assert admit(kubelet, "c", 40).envs["SGPUD_GPU_UUIDS"] == A
    became(kubelet, 62 + 2)
    with pytest.raises(AdmissionError, match="2 available"):
        admit(kubelet, "too large", 3)


def test_the_kubelet_asks_for_no_preference_among_memory_shares(
    node: Node, kubelet: StandInKubelet
) -> None:
    start(node, kubelet)
    admit(kubelet, "a", 12)
    assert {call.method for call in kubelet.calls} >= {"Allocate"}
    assert "GetPreferredAllocation" not in {call.method for call in kubelet.calls}


def test_what_is_given_again_is_worth_no_more_than_its_gpu_has(
    node: Node, kubelet: StandInKubelet
) -> None:
    """Pods end and start while a share becomes twice as large; the kubelet frees ids at once."""
    process = start(node, kubelet)
    for number in range(8):
        admit(kubelet, f"old{number}", 5)
    share(node, 'share_memory = "2GiB"')
    process.hang_up()
    declared = dict.fromkeys((A, B), 0)
    running = {}
    for number in range(8):
        kubelet.terminate(f"uid-old{number}")
        for more in range(2):
            try:
                given = admit(kubelet, f"new{number}-{more}", 5)
            except AdmissionError:
                continue
            uuid, size = given.envs["SGPUD_GPU_UUIDS"], int(given.envs["SGPUD_MEMORY_BYTES"])
            declared[uuid] += size
            running[f"new{number}-{more}"] = size
        assert declared[A] <= 40 * GIB
        assert declared[B] <= 24 * GIB
    assert running


def test_all_are_shown_and_the_tightest_fit_is_chosen(node: Node, kubelet: StandInKubelet) -> None:
    process = start(node, kubelet, 'advertise = "all"')
    became(kubelet, 64)
    assert admit(kubelet, "a", 20).envs["SGPUD_GPU_UUIDS"] == B
    assert admit(kubelet, "b", 5).envs["SGPUD_GPU_UUIDS"] == A
    assert admit(kubelet, "c", 4).envs["SGPUD_GPU_UUIDS"] == B
    assert process.status(lambda status: "29 held" in status)
    assert gpu(process, A)["held"] == 5


def test_what_no_gpu_holds_is_refused_with_the_room_of_each(
    node: Node, kubelet: StandInKubelet
) -> None:
    process = start(node, kubelet, 'advertise = "all"')
    admit(kubelet, "a", 10)
    process.status(lambda status: "10 held" in status)
    with pytest.raises(AdmissionError) as refused:
        admit(kubelet, "split", 50)
    assert "no GPU has room for 50 memory shares (50GiB)" in str(refused.value)
    assert f"{A} 40 (40GiB), {B} 14 (14GiB)" in str(refused.value)
    assert admit(kubelet, "fits", 40).envs["SGPUD_GPU_UUIDS"] == A


def test_held_shares_keep_their_size_over_a_reload_and_a_restart(
    node: Node, kubelet: StandInKubelet
) -> None:
    process = start(node, kubelet)
    admit(kubelet, "old", 13)
    share(node, 'share_memory = "4GiB"')
    process.hang_up()
    # B: 11 GiB are left, two of 4 GiB beside the thirteen; A: ten.
    kubelet.wait_for(lambda k: k.allocatable(MEMORY) == 13 + 10, WITHIN)
    given = admit(kubelet, "new", 2)
    assert given.envs["SGPUD_MEMORY_BYTES"] == str(8 * GIB)
    uuid = given.envs["SGPUD_GPU_UUIDS"]
    process.end()
    kubelet.skip()
    again = node.start()
    kubelet.next_devices(MEMORY, WITHIN)
    (old,) = (one for one in gpu(again, B)["holders"] if one["uid"] == "uid-old")
    (new,) = (one for one in gpu(again, uuid)["holders"] if one["uid"] == "uid-new")
    assert (old["shares"], old["bytes"]) == (13, 13 * GIB)
    assert (new["shares"], new["bytes"]) == (2, 8 * GIB)
    free = {one["uuid"]: one["free"] for one in pool(again)["gpus"]}
    assert uuid == B
    assert free == {A: 10, B: 0}


def test_from_places_to_memory_and_back_under_a_holder(node: Node, kubelet: StandInKubelet) -> None:
    node.configure(resource=MEMORY)
    process = node.start()
    became(kubelet, 20, 20)
    kept = admit(kubelet, "place", 1)
    assert kubelet.next_registration(WITHIN).preferred
    (uuid,) = kept.envs["SGPUD_GPU_UUIDS"].split(",")
    share(node)
    process.hang_up()
    # One place of ten is a tenth of its GPU's 40 or 24 GiB.
    room = {A: 36 if uuid == A else 40, B: 21 if uuid == B else 24}
    kubelet.wait_for(lambda k: k.allocatable(MEMORY) == 1 + room[A], WITHIN)
    assert {one["uuid"]: one["free"] for one in pool(process)["gpus"]} == room
    assert set(kept.ids[MEMORY]) <= {
        one for one, device in kubelet.devices(MEMORY).items() if device.health == "Healthy"
    }
    assert not kubelet.next_registration(WITHIN).preferred
    node.configure(resource=MEMORY)
    process.hang_up()
    # Places are chosen again, and so the kubelet has to ask for a preference again.
    assert kubelet.next_registration(WITHIN).preferred
    kubelet.wait_for(lambda k: k.allocatable(MEMORY) == 20, WITHIN)
    admit(kubelet, "asked", 1)
    assert "GetPreferredAllocation" in {call.method for call in kubelet.calls[-2:]}


def test_too_many_shares_refuse_a_reload(node: Node, kubelet: StandInKubelet) -> None:
    process = start(node, kubelet)
    share(node, 'share_memory = "128MiB"')
    process.hang_up()
    (problem,) = process.view()["configuration"]["problems"]
    assert "sharing.share_memory" in problem
    assert f"{A}: (40GiB - 0 kept by the driver - 0 reserve_memory) / 128MiB = 320" in problem
    became(kubelet, 40)
    share(node, 'share_memory = "128MiB"', "allow_large_status = true")
    process.hang_up()
    kubelet.wait_for(lambda k: k.allocatable(MEMORY) == 320, WITHIN)


def test_too_many_shares_at_start_list_the_held_ones_and_say_so(
    node: Node, kubelet: StandInKubelet
) -> None:
    process = start(node, kubelet)
    held = set(admit(kubelet, "held", 3).ids[MEMORY])
    became(kubelet, 40)
    process.end()
    kubelet.skip()
    share(node, 'share_memory = "128MiB"')
    again = node.start()
    # B has 192 of 128 MiB, less the 3 GiB that are held.
    kubelet.wait_for(lambda k: k.allocatable(MEMORY) == 3 + 192 - 24, WITHIN)
    assert all(kubelet.devices(MEMORY)[one].health == "Healthy" for one in held)
    assert "= 320 shares" in again.view()["notes"][0]


def test_less_memory_after_a_restart_drains_what_was_listed(
    node: Node, kubelet: StandInKubelet
) -> None:
    process = start(node, kubelet)
    became(kubelet, 40)
    process.end()
    kubelet.skip()
    text = node.gpus.read_text()
    node.gpus.write_text(text.replace('"24GiB"', '"24GiB"\nreserved = "600MiB"'))
    node.start()
    kubelet.next_devices(MEMORY, WITHIN)
    # One id less is listed Healthy or withheld; only the state directory knows that there was one.
    became(kubelet, 40, 64)
    assert len(kubelet.devices(MEMORY)) == 64


def test_a_state_file_that_is_broken_costs_nothing_else(
    node: Node, kubelet: StandInKubelet
) -> None:
    node.state.mkdir()
    (node.state / "listing.json").write_bytes(sealed(b'{"shares": [{"gpu": 5}]}'))
    process = start(node, kubelet)
    became(kubelet, 40)
    assert process.said("listing.json is corrupt")
