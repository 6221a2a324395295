"""The saved state of GPUs, across restarts and reboots: the file, and what is restored from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from sgpud.core.gpu.gpu import Gpu, Mig
from sgpud.core.gpu.observations import EventKind, GpuEvent
from sgpud.core.health.causes import Cause, HealthPolicy
from sgpud.core.health.machine import Health, HealthPhase
from sgpud.core.health.node_health import cordoned, gpus_seen, health_of, heard
from sgpud.core.health.xids import Remedy
from sgpud.core.planning.node import Node, Trust
from sgpud.node.gpu_state_store import (
    GPUS,
    GpuStateStore,
    SavedGpuState,
    StateError,
    dumped,
    loaded,
)
from sgpud.node.store import StateDirectory, sealed, unsealed
from tests.surroundings import listening

A = Gpu("GPU-aaaa", 0, "NVIDIA L4", 24 << 30, 1 << 20, 0, "0000:01:00.0", 1, (8, 9))
PART = evolve(A, uuid="MIG-bbbb", memory=5 << 30, mig=Mig(A.uuid, 3, 0))
XID_79 = GpuEvent(A.uuid, EventKind.XID, 79)

causes = st.builds(Cause, st.text(max_size=20), st.sampled_from(Remedy), st.text(max_size=20))
healths = st.one_of(
    st.builds(
        Health,
        phase=st.sampled_from([HealthPhase.SUSPECT, HealthPhase.UNHEALTHY, HealthPhase.PROBATION]),
        cause=causes,
        after=st.sampled_from([HealthPhase.HEALTHY, HealthPhase.PROBATION]),
        recovery=st.none() | st.integers(0, 9),
        stretch=st.integers(1, 64),
        served=st.text(max_size=20),
        cordoned=st.booleans(),
    ),
    st.just(Health(cordoned=True)),
)


class FakeReconciler:
    """As much of the reconciler as the store needs."""

    def __init__(self, policy: HealthPolicy) -> None:
        self.node = Node(policy=policy)

    def update(self, **facts: Any) -> None:
        self.node = evolve(self.node, **facts)

    def change(self, step: Callable[[Node], Node]) -> None:
        self.node = step(self.node)


class Life:
    """One process, or the same one in another boot."""

    def __init__(self, root: Path, boot: str = "one", *, trust: bool = True) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.reconciler = FakeReconciler(HealthPolicy(trust_last_known=trust))
        self.directory = StateDirectory(root / "state", self.clock)
        self.store = GpuStateStore(
            self.directory,
            self.reconciler,
            self.clock,
            fake=False,
            boot=boot,
        )
        self.store.start()

    def does(self, step: Callable[[Node], Node]) -> None:
        """A fact changes, and the node is reconciled."""
        self.reconciler.change(step)
        self.store.save(self.reconciler.node)

    def sees(self, *gpus: Gpu, driver: str = "550") -> None:
        self.does(lambda node: gpus_seen(node, gpus, driver, self.clock.seconds()))

    def reports(self, event: GpuEvent) -> None:
        self.does(lambda node: heard(node, event, self.clock.seconds()))

    def phase(self) -> HealthPhase:
        return health_of(self.reconciler.node, A.uuid).phase


def serving(root: Path, boot: str = "one", **rest: Any) -> Life:
    life = Life(root, boot, **rest)
    life.store.take_over()
    return life


def unhealthy(root: Path) -> Life:
    """A process that serves, and whose GPU needs a reboot."""
    life = serving(root)
    life.sees(A)
    life.reports(XID_79)
    return life


@given(st.dictionaries(st.sampled_from(["GPU-aaaa", "MIG-bbbb", "GPU-c"]), healths))
def test_what_is_written_can_be_read(found: dict[str, Health]) -> None:
    saved = SavedGpuState("boot", fake=True, driver="550", gpus=(A, PART), healths=found)
    assert loaded(dumped(saved)) == saved


def test_a_healthy_gpu_needs_no_entry() -> None:
    saved = SavedGpuState("boot", fake=False, driver="", gpus=(A,), healths={A.uuid: Health()})
    assert loaded(dumped(saved)).healths == {}


GOOD = json.loads(
    dumped(
        SavedGpuState(
            "boot",
            fake=False,
            driver="",
            gpus=(A, PART),
            healths={A.uuid: Health(HealthPhase.UNHEALTHY, Cause("XID 79", Remedy.REBOOT))},
        )
    )
)
PLACES = [
    (),
    *((name,) for name in GOOD),
    *(("gpus", 1, name) for name in GOOD["gpus"][1]),
    *(("gpus", 1, "mig", name) for name in GOOD["gpus"][1]["mig"]),
    *(("healths", A.uuid, name) for name in GOOD["healths"][A.uuid]),
    *(("healths", A.uuid, "cause", name) for name in GOOD["healths"][A.uuid]["cause"]),
]


def changed(document: Any, place: tuple[Any, ...], value: object) -> Any:
    if not place:
        return value
    copy = list(document) if isinstance(document, list) else dict(document)
    copy[place[0]] = changed(copy[place[0]], place[1:], value)
    return copy


@given(st.sampled_from(PLACES), st.sampled_from([{}, [], [1], -1, 1.5, "x", None, True, "🦜"]))
def test_a_corrupt_file_is_an_error_or_still_valid(place: tuple[Any, ...], value: object) -> None:
    content = json.dumps(changed(GOOD, place, value)).encode()
    try:
        again = loaded(content)
    except StateError:
        return
    assert loaded(dumped(again)) == again


@given(st.binary(max_size=60))
def test_random_bytes_are_an_error(content: bytes) -> None:
    with pytest.raises(StateError):
        loaded(content)


def test_a_restart_never_makes_an_unhealthy_gpu_healthy(tmp_path: Path) -> None:
    unhealthy(tmp_path)
    restarted = Life(tmp_path)
    assert restarted.phase() is HealthPhase.UNHEALTHY
    restarted.store.take_over()
    restarted.sees(A)
    assert restarted.phase() is HealthPhase.UNHEALTHY


def test_a_reboot_counts_once_as_the_remedy_of_a_cause(tmp_path: Path) -> None:
    unhealthy(tmp_path)
    second = serving(tmp_path, "two")
    assert second.phase() is HealthPhase.PROBATION
    second.sees(A)
    second.reports(XID_79)
    third = serving(tmp_path, "three")
    assert third.phase() is HealthPhase.UNHEALTHY
    assert serving(tmp_path, "four").phase() is HealthPhase.UNHEALTHY


def test_another_driver_after_a_restart_is_a_reset(tmp_path: Path) -> None:
    life = serving(tmp_path)
    life.sees(A, driver="550")
    life.reports(evolve(XID_79, number=48))
    restarted = serving(tmp_path)
    restarted.sees(A, driver="560")
    assert restarted.phase() is HealthPhase.PROBATION


def test_the_last_known_gpus_are_available_at_once(tmp_path: Path) -> None:
    serving(tmp_path).sees(A, PART)
    restarted = Life(tmp_path, "two")
    assert restarted.reconciler.node.gpus == (A, PART)
    assert restarted.reconciler.node.trust is Trust.LAST_KNOWN
    assert restarted.reconciler.node.trusted_until == pytest.approx(1120.0)


def test_saved_gpus_are_not_trusted_if_so_configured(tmp_path: Path) -> None:
    unhealthy(tmp_path)
    restarted = Life(tmp_path, trust=False)
    assert restarted.reconciler.node.gpus is None
    assert restarted.phase() is HealthPhase.UNHEALTHY


def test_only_the_serving_process_writes(tmp_path: Path) -> None:
    life = Life(tmp_path)
    life.sees(A)
    assert not (tmp_path / "state").exists()
    life.store.take_over()
    assert loaded(life.directory.read(GPUS) or b"").gpus == (A,)


def test_a_standby_restores_what_was_saved_while_it_waited(tmp_path: Path) -> None:
    active = serving(tmp_path)
    active.sees(A)
    standby = Life(tmp_path)
    standby.sees(A)
    active.does(lambda node: cordoned(node, A.uuid, on=True))
    active.reports(XID_79)
    assert standby.phase() is HealthPhase.HEALTHY
    standby.store.take_over()
    assert standby.phase() is HealthPhase.UNHEALTHY
    assert health_of(standby.reconciler.node, A.uuid).cordoned


def test_a_cordon_survives_a_reboot(tmp_path: Path) -> None:
    life = serving(tmp_path)
    life.sees(A)
    life.does(lambda node: cordoned(node, A.uuid, on=True))
    assert health_of(serving(tmp_path, "two").reconciler.node, A.uuid).cordoned


@pytest.mark.parametrize("content", [b"", b"{}", b"nonsense", b'{"format": 99}', b"[1]"])
def test_an_invalid_file_is_renamed_and_nothing_is_trusted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state" / GPUS
    path.parent.mkdir()
    path.write_bytes(sealed(content))
    with listening() as logged:
        life = Life(tmp_path)
        assert path.exists()
        assert life.reconciler.node.gpus is None
        life.directory.take_over()
        life.store.take_over()
    assert not path.exists()
    assert (path.parent / f"{GPUS}.corrupt").read_bytes() == sealed(content)
    assert logged.about("is corrupt")
    life.sees(A)
    assert loaded(unsealed(path.read_bytes()) or b"").gpus == (A,)


def test_fake_gpus_are_not_restored_as_real_ones(tmp_path: Path) -> None:
    serving(tmp_path).sees(A)
    store = GpuStateStore(
        StateDirectory(tmp_path / "state", Clock()),
        reconciler := FakeReconciler(HealthPolicy()),
        Clock(),
        fake=True,
        boot="one",
    )
    store.start()
    assert reconciler.node.gpus is None


@pytest.mark.slow
def test_ten_thousand_events_are_written_once(tmp_path: Path) -> None:
    life = unhealthy(tmp_path)
    path = tmp_path / "state" / GPUS
    before = path.stat().st_mtime_ns
    for _ in range(10_000):
        life.clock.advance(0.001)
        life.reports(XID_79)
    assert path.stat().st_mtime_ns == before


def test_a_disk_that_was_full_for_a_while_costs_nothing(tmp_path: Path) -> None:
    """Cordoned, and sick, while nothing could be written; killed a minute after it could again."""
    life = serving(tmp_path)
    life.sees(A)
    state = tmp_path / "state"
    moved = state.rename(tmp_path / "elsewhere")
    state.touch()
    life.does(lambda node: cordoned(node, A.uuid, on=True))
    life.reports(evolve(XID_79, number=48))
    life.clock.pump([0.5] * 16)
    assert life.directory.problem
    state.unlink()
    moved.rename(state)
    life.clock.pump([1.0] * 60)
    assert life.directory.problem == ""
    again = Life(tmp_path)
    assert again.phase() is HealthPhase.UNHEALTHY
    assert health_of(again.reconciler.node, A.uuid).cordoned
