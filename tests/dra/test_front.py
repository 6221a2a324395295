"""The DRA front from end to end: registered, published, prepared, and what goes wrong."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from sgpud.core.dra.allocator import DeviceRequest
from sgpud.core.dra.claims import MEMORY
from sgpud.testing.api_server import ApiFault
from sgpud.testing.dra_kubelet import CHECKPOINT
from tests.dra.node import DRIVER, A, B, DraNode

pytestmark = pytest.mark.slow
GIB = 2**30
ONE = DeviceRequest("container-0-request-0")


def eventually(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Wait for what nothing tells of: a file, a line of the daemon's status."""
    pause = Event()
    for _ in range(int(seconds / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    raise AssertionError(f"it did not happen that {what}")


def limits(node: DraNode, name: str, count: int = 1) -> dict[str, Any] | None:
    """A claim as the scheduler makes it for a pod with limits."""
    return node.api.schedule(name, DeviceRequest(ONE.name, count), limits=True)


def started(node: DraNode, claim: dict[str, Any] | None) -> dict[str, str]:
    """Have a claim prepared; the variables of a container with it."""
    assert claim is not None
    errors = node.kubelet.prepare([claim])
    assert list(errors.values()) == [""], node.logs()
    return node.kubelet.environment(claim["metadata"]["uid"], node.cdi)


def test_unchanged_pods_are_packed_and_told_what_they_have(node: DraNode) -> None:
    node.serve()
    node.registered()
    gpus = [started(node, limits(node, f"pod-{n}"))["SGPUD_GPU_UUIDS"] for n in range(5)]
    assert gpus == [A, A, A, A, B]
    said = started(node, limits(node, "two", 1))
    assert said["SGPUD_SHARES"] == "1"
    assert said["SGPUD_SHARES_PER_GPU"] == "4"
    assert said["SGPUD_GPU_MEMORY_BYTES"] == str(24 * GIB)
    assert said["NVIDIA_VISIBLE_DEVICES"] == B
    assert limits(node, "both", 2) is None
    eventually(lambda: len(node.holders()) == 6, "six holders are shown")
    assert {holder["pod"] for holder in node.holders()} >= {"pod-0", "two"}


def test_two_shares_are_two_gpus(node: DraNode) -> None:
    node.serve()
    node.registered()
    assert started(node, limits(node, "pod", 2))["SGPUD_GPU_UUIDS"] == f"{A},{B}"
    assert limits(node, "three", 3) is None


def test_an_amount_of_memory_is_packed_and_told(node: DraNode) -> None:
    node.serve()
    node.registered()
    for name, gpu in (("a", A), ("b", B)):
        claim = node.api.schedule(name, DeviceRequest("gpu", 1, {MEMORY: 20 * GIB}))
        said = started(node, claim)
        assert (said["SGPUD_GPU_UUIDS"], said["SGPUD_MEMORY_BYTES"]) == (gpu, str(20 * GIB))
    assert node.api.schedule("c", DeviceRequest("gpu", 1, {MEMORY: 12 * GIB})) is None


def test_the_slice_waits_for_the_registration(node: DraNode) -> None:
    """A pod that is bound before it costs 10 s."""
    node.kubelet.refuse = "not today"
    process = node.start()
    process.said("does not register gpu.deepomatic.com: not today")
    assert node.api.slices == {}
    assert ("POST", "/apis/resource.k8s.io/v1/resourceslices") not in node.api.calls
    node.kubelet.refuse = ""
    node.kubelet.restart()
    node.wait(lambda: bool(node.api.slices), "it is published")


def test_the_node_owns_the_slice(node: DraNode) -> None:
    node.serve()
    (found,) = node.api.slices.values()
    (owner,) = found["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", node.api.node, "node-uid")


@pytest.mark.parametrize("delay", [0.0, 3.0])
def test_the_slice_is_back_after_the_wipe_of_a_kubelet(node: DraNode, delay: float) -> None:
    process = node.serve()
    node.kubelet.wipe_after = delay
    wipes = node.kubelet.wipes
    node.kubelet.restart()
    assert node.kubelet.wait(lambda: node.kubelet.wipes > wipes)
    node.wait(lambda: bool(node.api.slices), "the slice is back", 2.0)
    process.said("again: it was changed or deleted")


def test_a_slice_that_is_edited_by_hand_is_repaired(node: DraNode) -> None:
    node.serve()
    (name,) = node.api.slices

    def more(found: dict[str, Any]) -> None:
        found["spec"]["devices"][0]["capacity"]["memory"]["value"] = "80Gi"
        found["spec"]["devices"][1]["attributes"]["extra"] = {"string": "x"}

    node.api.edit(name, more)
    node.wait(lambda: "80Gi" not in json.dumps(node.spec), "it is repaired", 5)
    assert "extra" not in json.dumps(node.spec)


def test_writes_are_a_second_apart(node: DraNode) -> None:
    process = node.serve()
    for gpu in (A, B) * 4:
        process.ask_about("cordon", gpu)
        process.ask_about("uncordon", gpu)
    process.ask_about("cordon", B)
    taint = ("gpu.deepomatic.com/cordoned", "operator", "NoSchedule")
    node.wait(lambda: node.taints() == {A: [], B: [taint]}, "the taint is there", 5)
    writes = [call for call in node.api.calls if call[0] == "PUT"]
    assert len(writes) <= 4


def test_an_unchanged_taint_keeps_its_time(node: DraNode) -> None:
    process = node.serve()
    process.ask_about("cordon", A)
    node.wait(lambda: bool(node.taints()[A]), "the taint is there", 5)
    (name,) = node.api.slices

    def old(found: dict[str, Any]) -> None:
        for device in found["spec"]["devices"]:
            for taint in device.get("taints", ()):
                taint["timeAdded"] = "2020-01-01T00:00:00Z"

    node.api.edit(name, old)
    process.ask_about("cordon", B)
    node.wait(lambda: bool(node.taints()[B]), "the other one is there", 5)
    first, second = (
        device["taints"][0]["timeAdded"]
        for device in sorted(node.spec["devices"], key=lambda device: str(device["name"]))
    )
    assert first == "2020-01-01T00:00:00Z"
    assert second > first


def test_a_claim_is_answered_the_same_and_its_lost_spec_restored(node: DraNode) -> None:
    process = node.serve()
    node.registered()
    claim = limits(node, "pod")
    first = started(node, claim)
    before = node.specs()
    for path in node.cdi.glob("*.json"):
        path.unlink()
    eventually(lambda: node.specs() == before, "the guard restores it")
    process.said("Restored 1 CDI specs")
    assert started(node, claim) == first


def test_a_restart_keeps_the_claims_and_their_specs(node: DraNode) -> None:
    process = node.serve()
    node.registered()
    first, second = limits(node, "first"), limits(node, "second")
    said = started(node, first)
    started(node, second)
    process.end(signal.SIGKILL)
    for path in node.cdi.glob("*.json"):
        path.unlink()
    (node.cdi / f"{DRIVER}-claim_stale.json").write_text("{}")
    node.kubelet.drivers.clear()
    node.serve()
    node.registered()
    eventually(lambda: len(node.specs()) == 2, "both specs are there, and no other")
    with node.api.stalled():
        # A prepared claim needs no API server.
        assert started(node, first) == said
    assert len(node.holders()) == 2
    assert first is not None
    assert node.kubelet.unprepare([first]) == {first["metadata"]["uid"]: ""}
    assert len(node.specs()) == 1
    eventually(lambda: len(node.holders()) == 1, "it holds nothing more")


def test_after_a_reboot_claims_are_prepared_again_from_the_state(node: DraNode) -> None:
    process = node.serve()
    node.registered()
    claim = limits(node, "pod")
    said = started(node, claim)
    process.end(signal.SIGKILL)
    for path in node.cdi.glob("*.json"):
        path.unlink()
    (record,) = (node.state / "claims").glob("*.json")
    document = json.loads(record.read_text())
    document["content"]["boot"] = "another boot"
    document["checksum"] = checksum(document["content"])
    record.write_text(json.dumps(document))
    node.kubelet.drivers.clear()
    node.kubelet.restart()
    node.serve()
    node.registered()
    assert node.specs() == {}
    with node.api.stalled():
        assert started(node, claim) == said


def checksum(content: object) -> str:
    """The checksum of a claim's file."""
    import hashlib  # noqa: PLC0415

    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_corrupt_claim_file_is_set_aside(node: DraNode) -> None:
    folder = node.state / "claims"
    folder.mkdir(parents=True)
    (folder / "uid-1.json").write_text('{"format": 1, "checksum": "x", "content": {}}')
    process = node.serve()
    process.said("is corrupt (the checksum differs)")
    assert (folder / "uid-1.corrupt").exists()


def test_unknown_claims_unprepare_with_success(node: DraNode) -> None:
    node.serve()
    node.registered()
    claim = {"metadata": {"uid": "never-seen", "namespace": "default", "name": "x"}}
    assert node.kubelet.unprepare([claim]) == {"never-seen": ""}
    forged = {"metadata": {"uid": "../../etc/passwd", "namespace": "default", "name": "x"}}
    assert node.kubelet.unprepare([forged]) == {"../../etc/passwd": ""}
    (error,) = node.kubelet.prepare([forged]).values()
    assert "is not the UID of a claim" in error


def result(device: str, memory: str = "1Gi", driver: str = DRIVER, pool: str = "node-1") -> Any:
    """One entry of an allocation."""
    return {
        "request": "gpu",
        "driver": driver,
        "pool": pool,
        "device": device,
        "shareID": "s-1",
        "consumedCapacity": {"memory": memory, "shares": "1"},
    }


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ([], "has no device of this driver"),
        ([result(A.lower(), driver="other.example.com")], "has no device of this driver"),
        ([result("gpu-unknown")], "no GPU of this node is device gpu-unknown"),
        ([result(A.lower(), pool="node-2")], "pool node-2 is not on this node"),
        ([result(A.lower(), "-20Gi")], "is below 0"),
        ([result(A.lower(), "25Gi")], "25GiB of memory requested, 24GiB of 24GiB left"),
        ([result(A.lower(), "many")], "is not a quantity"),
    ],
)
def test_claims_that_cannot_be_are_refused_with_the_reason(
    node: DraNode, results: list[Any], says: str
) -> None:
    process = node.serve()
    node.registered()
    claim = node.api.add_claim("bad", results)
    (error,) = node.kubelet.prepare([claim]).values()
    assert says in error
    assert node.specs() == {}
    assert not list((node.state / "claims").glob("*.json"))
    process.said("Not preparing claim default/bad")


def test_a_claim_that_was_deleted_and_created_again_is_not_mistaken(node: DraNode) -> None:
    node.serve()
    node.registered()
    old = limits(node, "pod")
    new = limits(node, "pod")
    assert old is not None
    (error,) = node.kubelet.prepare([old]).values()
    assert "it was deleted and created again" in error
    started(node, new)


def test_a_refusal_of_the_authorizer_is_tried_again(node: DraNode) -> None:
    node.serve()
    node.registered()
    claim = limits(node, "pod")
    node.api.faults.append(ApiFault(403, 2, "GET"))
    started(node, claim)


def test_a_401_reads_the_credentials_again(node: DraNode) -> None:
    process = node.serve()
    node.registered()
    claim = limits(node, "pod")
    node.api.token = "another-token"  # noqa: S105 - of this test
    node.api.write_kubeconfig(node.root / "kubeconfig")
    started(node, claim)
    process.ask_about("cordon", A)
    node.wait(lambda: bool(node.taints()[A]), "the taint is there", 5)


def test_256_claims_at_once(node: DraNode) -> None:
    node.serve(config="[sharing]\nduplication_factor = 200\n")
    node.registered()
    claims = [limits(node, f"pod-{number}") for number in range(256)]
    errors = node.kubelet.prepare([claim for claim in claims if claim])
    assert len(errors) == 256
    assert set(errors.values()) == {""}
    assert len(node.specs()) == 256


def test_a_cut_watch_and_one_that_is_too_old_are_followed_by_another(node: DraNode) -> None:
    node.serve()
    for spoil in (node.api.cut_watches, node.api.forget_history):
        watches = sum(call[0] == "WATCH" for call in node.api.calls)
        spoil()
        node.api.cut_watches()

        def watched(before: int = watches) -> bool:
            return sum(call[0] == "WATCH" for call in node.api.calls) > before

        node.wait(watched, "it watches again")
        node.api.delete_all()
        node.wait(lambda: bool(node.api.slices), "the slice is back", 5)


def test_a_429_is_waited_for(node: DraNode) -> None:
    node.api.faults.append(ApiFault(429, 1, "POST", retry_after=2))
    node.serve()
    posts = [call for call in node.api.calls if call[0] == "POST"]
    assert len(posts) == 3  # refused, tried without a write, written


def test_a_cluster_without_consumable_capacity_gets_no_exclusive_gpu(node: DraNode) -> None:
    node.api.gates_off.add("DRAConsumableCapacity")
    process = node.start()
    process.said("enable the feature gate DRAConsumableCapacity")
    assert node.api.slices == {}
    (pool,) = process.view()["pools"]
    assert "DRAConsumableCapacity" in pool["problem"]


def test_a_gate_that_goes_off_later_deletes_the_slice(node: DraNode) -> None:
    process = node.serve()
    node.api.gates_off.add("DRAConsumableCapacity")
    process.ask_about("cordon", A)
    node.wait(lambda: not node.api.slices, "the slice is gone", 5)
    process.said("DRAConsumableCapacity")


def test_a_cluster_without_taints_is_named(node: DraNode) -> None:
    node.api.gates_off.add("DRADeviceTaints")
    process = node.serve()
    process.ask_about("cordon", A)
    process.said("this cluster lacks DRADeviceTaints")
    assert node.taints() == {A: [], B: []}
    # What the server drops is no reason to write again and again.
    puts = sum(call[0] == "PUT" for call in node.api.calls)
    assert puts <= 2


def test_health_reaches_the_kubelet(node: DraNode) -> None:
    node.serve()
    node.registered()
    names = {A.lower(), B.lower()}
    assert node.kubelet.wait(lambda: node.kubelet.health.keys() == names)
    assert set(node.kubelet.health.values()) == {(1, "")}


def test_a_full_disk_refuses_the_claim_and_says_why(node: DraNode) -> None:
    process = node.serve()
    node.registered()
    claim = limits(node, "pod")
    node.cdi.mkdir(exist_ok=True)
    folder = node.state / "claims"
    folder.parent.mkdir(exist_ok=True)
    if folder.exists():
        folder.rmdir()
    folder.write_text("a file where the folder should be")
    assert claim is not None
    (error,) = node.kubelet.prepare([claim]).values()
    assert "cannot write" in error
    assert "File exists" in error
    process.said("Not preparing claim default/pod: cannot write")
    folder.unlink()
    started(node, claim)


def test_a_stop_unregisters_and_leaves_slice_and_specs(node: DraNode) -> None:
    process = node.serve()
    node.registered()
    started(node, limits(node, "pod"))
    process.end()
    assert not list((node.kubelet.root / "plugins_registry").glob("*"))
    assert node.kubelet.wait(lambda: not node.kubelet.drivers)
    assert node.api.slices
    assert node.specs()


def test_a_standby_takes_over_without_losing_a_claim(node: DraNode) -> None:
    first = node.serve()
    node.registered()
    claim = limits(node, "pod")
    said = started(node, claim)
    second = node.start()
    second.said("standing by")
    assert len(list((node.kubelet.root / "plugins_registry").glob("*.sock"))) == 1
    first.end()
    second.said("Registered gpu.deepomatic.com")
    assert started(node, claim) == said
    started(node, limits(node, "next"))


def test_the_kubelets_checkpoint_is_as_the_stand_in_writes_it(node: DraNode) -> None:
    node.serve()
    node.registered()
    claim = limits(node, "pod")
    started(node, claim)
    data = json.loads(json.loads((node.kubelet.root / CHECKPOINT).read_text())["Data"])
    (entry,) = data["ClaimInfoStateList"]
    (device,) = entry["DriverState"][DRIVER]["Devices"]
    assert device["DeviceName"] == A.lower()


def test_without_credentials_it_says_so_and_comes_up_later(node: DraNode) -> None:
    process = node.start(kubeconfig="{}")
    process.said('contexts has no ""')
    node.api.write_kubeconfig(node.root / "kubeconfig")
    node.wait(lambda: bool(node.api.slices), "it is published")


def test_a_claim_whose_file_was_lost_is_restored_from_the_kubelets_record(node: DraNode) -> None:
    process = node.serve()
    node.registered()
    claim = limits(node, "pod")
    said = started(node, claim)
    process.end(signal.SIGKILL)
    for folder in (node.state / "claims", node.cdi):
        for path in folder.glob("*.json"):
            path.unlink()
    node.kubelet.drivers.clear()
    second = node.serve()
    second.said("Restored claim default/pod from the API server")
    assert claim is not None
    assert node.kubelet.environment(claim["metadata"]["uid"], node.cdi) == {
        **said,
        "SGPUD_SINCE": node.kubelet.environment(claim["metadata"]["uid"], node.cdi)["SGPUD_SINCE"],
    }


def test_a_claim_that_the_kubelet_forgot_is_dropped(node: DraNode) -> None:
    process = node.serve()
    node.registered()
    old, kept = limits(node, "old"), limits(node, "kept")
    started(node, old)
    started(node, kept)
    process.end(signal.SIGKILL)
    for path in (node.state / "claims").glob("*.json"):
        document = json.loads(path.read_text())
        document["content"]["since"] -= 100
        document["checksum"] = checksum(document["content"])
        path.write_text(json.dumps(document))
    assert old is not None
    node.kubelet.forget(old)
    node.kubelet.drivers.clear()
    second = node.serve()
    second.said("the kubelet forgot it")
    eventually(lambda: len(node.specs()) == 1, "its spec is gone")


def test_a_plugin_directory_that_is_replaced_is_served_again(node: DraNode) -> None:
    process = node.serve()
    node.registered()
    said = started(node, limits(node, "pod"))
    folder = node.kubelet.root / "device-plugins"
    mark = process.log.mark
    folder.rename(folder.with_name("old"))
    folder.mkdir()
    process.said("Registered gpu.deepomatic.com", mark)
    assert started(node, limits(node, "next"))["SGPUD_GPU_UUIDS"] == said["SGPUD_GPU_UUIDS"]
    node.api.delete_all()
    node.wait(lambda: bool(node.api.slices), "the slice is back", 5)
