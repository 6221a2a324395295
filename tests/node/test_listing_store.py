"""The memory shares that were listed last, in the state directory."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sgpud.core.intset import IntSet
from sgpud.core.planning.listing import Draining, ListedShares, Listing
from sgpud.node.listing_store import MEMORY_SHARES, ListingStore
from sgpud.node.store import StateDirectory
from tests.core.values import GIB, OTHER, POOL, some_numbers, uuid


def kept(folder: Path, listing: Listing) -> ListingStore:
    """A folder in which this was kept."""
    found = ListingStore(StateDirectory(folder))
    found.keep(listing)
    return found


def test_what_drains_is_kept_as_listed(tmp_path: Path) -> None:
    block = ListedShares(IntSet.span(0, 5), (Draining(IntSet.of([7]), 3.0),), GIB)
    kept(tmp_path, Listing({(POOL, uuid(0)): block}))
    found = ListingStore(StateDirectory(tmp_path)).listing()
    assert found == Listing(
        {(POOL, uuid(0)): ListedShares(IntSet.of([0, 1, 2, 3, 4, 7]), size=GIB)}
    )


@given(some_numbers)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_numbers_come_back(tmp_path: Path, numbers: IntSet) -> None:
    kept(tmp_path, Listing({(POOL, uuid(1)): ListedShares(numbers, size=GIB)}))
    assert ListingStore(StateDirectory(tmp_path)).listing().blocks[POOL, uuid(1)].active == numbers


def test_places_are_not_kept_and_make_no_file(tmp_path: Path) -> None:
    kept(tmp_path, Listing({(POOL, uuid(0)): ListedShares(IntSet.span(0, 5))}))
    assert not (tmp_path / MEMORY_SHARES).exists()
    assert ListingStore(StateDirectory(tmp_path)).listing() == Listing()


def test_when_no_memory_share_is_left_the_file_says_so(tmp_path: Path) -> None:
    memory = Listing({(OTHER, uuid(0)): ListedShares(IntSet.span(0, 5), size=GIB)})
    kept(tmp_path, memory)
    kept(tmp_path, Listing())
    assert ListingStore(StateDirectory(tmp_path)).listing() == Listing()
    same = kept(tmp_path, memory)
    same.keep(Listing())
    assert ListingStore(StateDirectory(tmp_path)).listing() == Listing()


def test_the_same_is_written_once(tmp_path: Path) -> None:
    memory = Listing({(POOL, uuid(0)): ListedShares(IntSet.span(0, 5), size=GIB)})
    reconciler = kept(tmp_path, memory)
    (tmp_path / MEMORY_SHARES).unlink()
    reconciler.keep(memory)
    assert not (tmp_path / MEMORY_SHARES).exists()


ENTRY = f'"resource": "{POOL}", "gpu": "{uuid(0)}"'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"shares": 5}',
        '{"shares": [5]}',
        '{"shares": [{}]}',
        f'{{"shares": [{{{ENTRY}, "size": 5, "numbers": [[5, 4]]}}]}}',
        f'{{"shares": [{{{ENTRY}, "size": 5, "numbers": [[0.5, 4]]}}]}}',
        f'{{"shares": [{{{ENTRY}, "size": 5, "numbers": [[0, 99999999999]]}}]}}',
        f'{{"shares": [{{{ENTRY}, "size": 0, "numbers": [[0, 4]]}}]}}',
        f'{{"shares": [{{{ENTRY}, "size": true, "numbers": [[0, 4]]}}]}}',
        f'{{"shares": [{{"resource": "x", "gpu": "{uuid(0)}", "size": 5, "numbers": []}}]}}',
        f'{{"shares": [{{"resource": "{POOL}", "gpu": "../..", "size": 5, "numbers": []}}]}}',
        f'{{"shares": [{{"resource": 5, "gpu": "{uuid(0)}", "size": 5, "numbers": []}}]}}',
        "[" * 100_000,
    ],
)
def test_a_file_that_is_none_is_left_aside(tmp_path: Path, text: str) -> None:
    (tmp_path / MEMORY_SHARES).write_text(text)
    assert ListingStore(StateDirectory(tmp_path)).listing() == Listing()


@given(st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_listing_or_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MEMORY_SHARES).write_bytes(content)
    assert ListingStore(StateDirectory(tmp_path)).listing() == Listing()
