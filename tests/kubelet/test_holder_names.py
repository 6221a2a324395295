"""Who holds what: the checkpoint and podresources, joined, and what is asked when."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import CheckpointState, Holder, NamedPod
from sgpud.core.sharing.share_id import share_id
from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.kubelet.checkpoint import parse
from sgpud.kubelet.holders import HINTED, OTHERWISE, WHILE_HELD, HoldersObserver, HolderTracker

RESOURCE = "deepomatic.com/shared-gpu-memory"
UUID = "GPU-00000000-0000-4000-8000-000000000000"
GIB = 2**30


def entry(
    pod: str,
    *numbers: int,
    container: str = "main",
    envs: dict[str, str] | None = None,
    cdi: tuple[str, ...] = (),
) -> dict[str, object]:
    """An entry of the checkpoint."""
    devices = [api.CDIDevice(name=name) for name in cdi]
    answer = api.ContainerAllocateResponse(envs=envs or {}, cdi_devices=devices)
    response = answer.SerializeToString()
    return {
        "PodUID": pod,
        "ContainerName": container,
        "ResourceName": RESOURCE,
        "DeviceIDs": {"-1": [share_id(UUID, number) for number in numbers]},
        "AllocResp": base64.b64encode(response).decode(),
    }


def text(*entries: dict[str, object]) -> bytes:
    """A checkpoint."""
    return json.dumps({"Data": {"PodDeviceEntries": entries}}).encode()


def named(pod: str, *numbers: int) -> NamedPod:
    """What podresources says of a pod."""
    return NamedPod("default", pod, frozenset(share_id(UUID, number) for number in numbers))


def terms(envs: dict[str, str]) -> tuple[dict[str, int], dict[str, int], float]:
    """The terms of a holder whose recorded answer had these variables."""
    (holder,), _ = parse(text(entry("a", 1, envs=envs)))
    return dict(holder.per_gpu), dict(holder.sizes), holder.since


def test_the_terms_are_read_back_from_the_recorded_answer() -> None:
    envs = {
        "SGPUD_GPU_UUIDS": UUID,
        "SGPUD_SHARES": "12",
        "SGPUD_SHARES_PER_GPU": "40",
        "SGPUD_MEMORY_BYTES": str(12 * GIB),
        "SGPUD_SINCE": "1790000000",
    }
    assert terms(envs) == ({UUID: 40}, {UUID: GIB}, 1_790_000_000.0)
    other = {name.replace("SGPUD_", "SGPUD_SHARED_A100_"): value for name, value in envs.items()}
    assert terms(other) == terms(envs)


def test_the_memory_cap_is_read_back_from_the_names_of_the_devices() -> None:
    envs = {"SGPUD_GPU_UUIDS": UUID}
    cdi = ("nvidia.com/gpu=GPU-1", "deepomatic.com/memory-limit=12288MiB")
    (holder,), _ = parse(text(entry("a", 1, envs=envs, cdi=cdi)))
    assert holder.cap == 12288
    (holder,), _ = parse(text(entry("a", 1, envs=envs, cdi=cdi[:1])))
    assert holder.cap == 0


def test_invalid_terms_are_left_out() -> None:
    for value in ("", "x", "-5", "1e9", "٣", "9" * 19, "0"):
        envs = {
            "SGPUD_GPU_UUIDS": UUID,
            "SGPUD_SHARES": value,
            "SGPUD_SHARES_PER_GPU": value,
            "SGPUD_MEMORY_BYTES": value,
            "SGPUD_SINCE": value,
        }
        assert terms(envs) == ({}, {}, 0.0), value


@define
class Lists:
    """A podresources service to play with."""

    reachable: bool = True
    asked: list[Deferred[tuple[NamedPod, ...]]] = field(factory=list)

    def held(self) -> Deferred[tuple[NamedPod, ...]]:
        self.asked.append(Deferred())
        return self.asked[-1]


class HoldersTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "kubelet_internal_checkpoint"
        self.clock = Clock()
        self.lists = Lists()
        self.learned: list[CheckpointState] = []
        self.waiting = False
        self.resends = 0
        observer = HoldersObserver(self.learned.append, lambda: self.waiting, self.resend)
        self.holders = HolderTracker(self.path, self.clock, self.lists, observer)
        self.addCleanup(self.holders.stop)

    def resend(self) -> None:
        self.resends += 1

    def write(self, *entries: dict[str, object]) -> None:
        self.path.write_bytes(text(*entries))

    def answer(self, *pods: NamedPod) -> None:
        self.lists.asked[-1].callback(pods)

    def tick(self) -> None:
        self.clock.advance(WHILE_HELD)

    @property
    def names(self) -> dict[str, str]:
        return {one.pod: f"{one.namespace}/{one.name}" for one in self.learned[-1].holders}

    def test_a_pod_gets_its_name_from_matching_ids(self) -> None:
        self.write(entry("uid-a", 1, 2), entry("uid-b", 3), entry("uid-b", 4, container="side"))
        self.holders.start()
        self.assertEqual(self.names, {"uid-a": "/", "uid-b": "/"})
        self.tick()
        self.answer(named("b", 4), named("a", 1, 2))
        self.assertEqual(self.names, {"uid-a": "default/a", "uid-b": "default/b"})
        self.assertEqual(len(self.learned), 2)

    def test_another_pod_with_the_same_ids_does_not_inherit_the_name(self) -> None:
        self.write(entry("uid-a", 1))
        self.holders.start()
        self.tick()
        self.answer(named("a", 1))
        self.write(entry("uid-b", 1))
        self.holders.read()
        self.assertEqual(self.names, {"uid-b": "/"})
        self.tick()
        self.answer(named("b", 1))
        self.assertEqual(self.names, {"uid-b": "default/b"})

    def test_a_new_pods_name_is_requested_at_once_and_then_every_second(self) -> None:
        self.write()
        self.holders.start()
        self.tick()
        self.assertEqual(self.lists.asked, [])
        self.write(entry("uid-init", 1))
        self.holders.read()
        self.clock.advance(0)
        self.assertEqual(len(self.lists.asked), 1)
        self.answer()
        for number in range(2, 6):
            self.tick()
            self.assertEqual(len(self.lists.asked), number)
            self.answer()

    def test_a_new_pods_name_is_not_requested_twice_within_a_second(self) -> None:
        self.write(entry("uid-init", 1))
        self.holders.start()
        self.clock.advance(HINTED)
        self.answer()
        self.holders.read()
        self.clock.advance(HINTED)
        self.assertEqual(len(self.lists.asked), 1)

    def test_podresources_is_asked_every_five_seconds_while_a_grant_waits(self) -> None:
        self.waiting = True
        self.holders.start()
        for number in range(1, 4):
            self.tick()
            self.assertEqual(len(self.lists.asked), number)
            self.answer()

    def test_a_pod_that_ended_unnoticed_is_freed_by_resending_the_list(self) -> None:
        self.write(entry("uid-a", 1), entry("uid-b", 2))
        self.waiting = True
        self.holders.start()
        self.tick()
        self.answer(named("a", 1), named("b", 2))
        self.assertEqual(self.resends, 0)
        self.tick()
        self.answer(named("b", 2))
        self.assertEqual(self.resends, 1)
        self.write(entry("uid-b", 2))
        self.holders.changed()
        self.clock.advance(1)
        self.assertEqual(self.names, {"uid-b": "default/b"})

    def test_without_podresources_the_holders_may_be_stale(self) -> None:
        self.write(entry("uid-a", 1))
        self.lists.reachable = False
        self.holders.start()
        self.tick()
        self.assertIn("podresources cannot be asked", self.learned[-1].doubt)
        self.assertEqual(self.learned[-1].problem, "")
        self.assertEqual(len(self.learned[-1].holders), 1)
        self.lists.reachable = True
        self.clock.advance(OTHERWISE)
        self.answer(named("a", 1))
        self.assertEqual(self.learned[-1].doubt, "")

    def test_a_podresources_that_fails_costs_no_holder_and_no_name(self) -> None:
        self.write(entry("uid-a", 1))
        self.holders.start()
        self.tick()
        self.answer(named("a", 1))
        self.clock.advance(OTHERWISE)
        self.lists.asked[-1].errback(ValueError("garbage"))
        self.assertIn("garbage", self.learned[-1].doubt)
        self.assertEqual(self.names, {"uid-a": "default/a"})

    def test_a_wrong_podresources_answer_costs_no_holder(self) -> None:
        self.write(entry("uid-a", 1))
        self.holders.start()
        self.tick()
        self.answer(named("liar", 1, 2, 3), NamedPod("", "", frozenset(["not ours"])))
        self.assertEqual(self.learned[-1].holders[0].shares, {UUID: IntSet.of([1])})

    def test_a_checkpoint_that_breaks_costs_no_holder_and_no_name(self) -> None:
        self.write(entry("uid-a", 1))
        self.holders.start()
        self.tick()
        self.answer(named("a", 1))
        self.path.write_bytes(b"{")
        self.holders.read()
        self.flushLoggedErrors()
        self.assertIn("not JSON", self.learned[-1].problem)
        self.assertEqual(self.names, {"uid-a": "default/a"})

    def test_an_answer_after_the_stop_changes_nothing(self) -> None:
        self.write(entry("uid-a", 1))
        self.holders.start()
        self.tick()
        told = len(self.learned)
        self.holders.stop()
        self.assertEqual(len(self.learned), told)
        self.assertEqual(self.clock.getDelayedCalls(), [])


def test_a_holder_of_another_version_has_no_terms() -> None:
    (holder,), _ = parse(text(entry("a", 1)))
    assert holder == Holder("a", "main", RESOURCE, {UUID: IntSet.of([1])})
