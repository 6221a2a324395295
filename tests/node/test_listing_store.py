"""The shares that were listed last, in the state directory."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from sgpud.core.intset import IntSet
from sgpud.core.planning.listing import Draining, ListedShares, Listing
from sgpud.node.listing_store import LISTING, ListingStore
from sgpud.node.store import StateDirectory, sealed
from tests.core.values import GIB, OTHER, POOL, some_numbers, uuid

NOW = 50.0


def store(folder: Path) -> ListingStore:
    return ListingStore(StateDirectory(folder, Clock()))


def kept(folder: Path, listing: Listing) -> ListingStore:
    """A folder in which this was kept."""
    found = store(folder)
    found.keep(listing)
    return found


@pytest.mark.parametrize("size", [0, GIB])
def test_what_drains_drains_again_after_a_restart(tmp_path: Path, size: int) -> None:
    block = ListedShares(IntSet.span(0, 5), (Draining(IntSet.of([7]), 3.0),), size)
    kept(tmp_path, Listing({(POOL, uuid(0)): block}))
    assert store(tmp_path).listing(NOW) == Listing(
        {(POOL, uuid(0)): ListedShares(IntSet.span(0, 5), (Draining(IntSet.of([7]), NOW),), size)}
    )


@given(some_numbers)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_numbers_come_back(tmp_path: Path, numbers: IntSet) -> None:
    kept(tmp_path, Listing({(POOL, uuid(1)): ListedShares(numbers, size=GIB)}))
    assert store(tmp_path).listing(NOW).blocks[POOL, uuid(1)].active == numbers


def test_the_file_says_when_no_share_is_left(tmp_path: Path) -> None:
    same = kept(tmp_path, Listing({(OTHER, uuid(0)): ListedShares(IntSet.span(0, 5), size=GIB)}))
    same.keep(Listing())
    assert store(tmp_path).listing(NOW) == Listing()


def test_the_same_is_written_once(tmp_path: Path) -> None:
    memory = Listing({(POOL, uuid(0)): ListedShares(IntSet.span(0, 5), size=GIB)})
    reconciler = kept(tmp_path, memory)
    (tmp_path / LISTING).unlink()
    reconciler.keep(memory)
    assert not (tmp_path / LISTING).exists()


def entry(**fields: object) -> str:
    whole = {"resource": POOL, "gpu": uuid(0), "size": 5, "active": [[0, 4]], "draining": []}
    return json.dumps({"shares": [{**whole, **fields}]})


def test_the_entry_of_these_tests_is_a_good_one(tmp_path: Path) -> None:
    (tmp_path / LISTING).write_bytes(sealed(entry().encode()))
    assert store(tmp_path).listing(NOW).blocks


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"shares": 5}',
        '{"shares": [5]}',
        '{"shares": [{}]}',
        entry(active=[[5, 4]]),
        entry(draining=[[5, 4]]),
        entry(active=[[0.5, 4]]),
        entry(active=[[0, 99999999999]]),
        entry(active=[[0, 1 << 20]]),
        entry(size=-1),
        entry(size=True),
        entry(resource="x"),
        entry(resource=5),
        entry(gpu="../.."),
        "[" * 100_000,
    ],
)
def test_a_corrupt_file_is_set_aside(tmp_path: Path, text: str) -> None:
    (tmp_path / LISTING).write_bytes(sealed(text.encode()))
    directory = StateDirectory(tmp_path, Clock())
    directory.take_over()
    assert ListingStore(directory).listing(NOW) == Listing()
    assert [each.name for each in tmp_path.iterdir()] == [f"{LISTING}.corrupt"]


@given(st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_listing_or_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LISTING).write_bytes(sealed(content))
    assert store(tmp_path).listing(NOW) == Listing()


def test_many_ranges_take_as_long_as_they_are_many(tmp_path: Path) -> None:
    ranges = [[number, number + 1] for number in range(0, 40_000, 2)]
    (tmp_path / LISTING).write_bytes(sealed(entry(active=ranges).encode()))
    before = time.process_time()
    found = store(tmp_path).listing(NOW)
    assert len(found.blocks[POOL, uuid(0)].active) == len(ranges)
    assert time.process_time() - before < 2.0  # quadratic: 12 s
