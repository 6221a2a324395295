"""Claims beside the kubelet's record: what is dropped, and what a clock that jumps changes."""

from __future__ import annotations

from pathlib import Path

from sgpud.core.dra.claims import AllocatedClaim, PreparedClaim
from sgpud.core.dra.injecting import InjectedClaim
from sgpud.kubelet.dra.cdi_folder import CdiFolder
from sgpud.kubelet.dra.checkpoint import RecordedClaim
from sgpud.kubelet.dra.records import RecordFolder
from sgpud.kubelet.dra.servicer import LEFTOVER_AFTER, DraServicer
from sgpud.kubelet.dra.store import ClaimStore

NOW = 1_800_000_000
YEAR = 365 * 86_400


class NoReader:
    """No API server."""

    def read(self, namespace: str, name: str, uid: str, within: float) -> AllocatedClaim:
        """Never asked for."""
        raise AssertionError((namespace, name, uid, within))


class Nobody:
    """Hears nothing."""

    def registered(self, problem: str) -> None:
        """Registered."""

    def prepared(self, seconds: float) -> None:
        """Prepared."""

    def refused(self, claim: str, reason: str, problem: str) -> None:
        """Refused."""


class World:
    """A servicer with one prepared claim, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.wall = float(NOW)
        cdi = CdiFolder(folder / "cdi", "gpu.example.com")
        self.store = ClaimStore(RecordFolder(folder / "claims"), cdi, "boot", lambda: None)
        claim = AllocatedClaim("uid-1", "prod", "train", ())
        injected = InjectedClaim(PreparedClaim(claim, {}, NOW), "{}", ())
        self.store.add(lambda _: injected)
        self.servicer = DraServicer(
            "gpu.example.com",
            self.store,
            NoReader(),
            Nobody(),
            lambda: self.wall,
            lambda _: None,
        )

    @property
    def claims(self) -> list[str]:
        """The UIDs of what is prepared."""
        return [claim.uid for claim in self.store.claims]


RECORD = {"uid-1": RecordedClaim("prod", "train", "uid-1", prepared=True)}


def test_a_claim_on_record_stays_whatever_the_clock_does(tmp_path: Path) -> None:
    world = World(tmp_path)
    for jump in (YEAR, -2 * YEAR, 0):
        world.wall = NOW + jump
        world.servicer.compare(RECORD)
        assert world.claims == ["uid-1"]


def test_a_claim_that_is_not_on_record_is_dropped_when_it_is_old(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.wall = NOW + LEFTOVER_AFTER - 1
    world.servicer.compare({})
    assert world.claims == ["uid-1"]
    world.wall = NOW - YEAR
    world.servicer.compare({})
    assert world.claims == ["uid-1"]
    world.wall = NOW + LEFTOVER_AFTER + 1
    world.servicer.compare({})
    assert world.claims == []
    assert not list((tmp_path / "cdi").iterdir())
    assert not list((tmp_path / "claims").iterdir())
