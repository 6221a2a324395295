"""The memory shares listed last, in the state directory."""

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
    """A store after saving this listing."""
    found = ListingStore(StateDirectory(folder))
    found.keep(listing)
    return found


def test_draining_shares_are_saved_as_listed(tmp_path: Path) -> None:
    block = ListedShares(IntSet.span(0, 5), (Draining(IntSet.of([7]), 3.0),), GIB)
    kept(tmp_path, Listing({(POOL, uuid(0)): block}))
    found = ListingStore(StateDirectory(tmp_path)).listing()
    assert found == Listing(
        {(POOL, uuid(0)): ListedShares(IntSet.of([0, 1, 2, 3, 4, 7]), size=GIB)}
    )


@given(some_numbers)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_numbers_are_restored(tmp_path: Path, numbers: IntSet) -> None:
    kept(tmp_path, Listing({(POOL, uuid(1)): ListedShares(numbers, size=GIB)}))
    assert ListingStore(StateDirectory(tmp_path)).listing().blocks[POOL, uuid(1)].active == numbers


def test_shares_without_a_size_are_not_saved(tmp_path: Path) -> None:
    kept(tmp_path, Listing({(POOL, uuid(0)): ListedShares(IntSet.span(0, 5))}))
    assert not (tmp_path / MEMORY_SHARES).exists()
    assert ListingStore(StateDirectory(tmp_path)).listing() == Listing()


def test_the_file_is_emptied_when_no_memory_share_is_left(tmp_path: Path) -> None:
    memory = Listing({(OTHER, uuid(0)): ListedShares(IntSet.span(0, 5), size=GIB)})
    kept(tmp_path, memory)
    kept(tmp_path, Listing())
    assert ListingStore(StateDirectory(tmp_path)).listing() == Listing()
    same = kept(tmp_path, memory)
    same.keep(Listing())
    assert ListingStore(StateDirectory(tmp_path)).listing() == Listing()


def test_the_same_listing_is_written_once(tmp_path: Path) -> None:
    memory = Listing({(POOL, uuid(0)): ListedShares(IntSet.span(0, 5), size=GIB)})
    store = kept(tmp_path, memory)
    (tmp_path / MEMORY_SHARES).unlink()
    store.keep(memory)
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
def test_a_corrupt_file_is_ignored(tmp_path: Path, text: str) -> None:
    (tmp_path / MEMORY_SHARES).write_text(text)
    assert ListingStore(StateDirectory(tmp_path)).listing() == Listing()


@given(st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_are_a_listing_or_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MEMORY_SHARES).write_bytes(content)
    assert ListingStore(StateDirectory(tmp_path)).listing() == Listing()
