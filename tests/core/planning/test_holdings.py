from fractions import Fraction

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import (
    SETTLED_AFTER,
    CheckpointState,
    HeldShares,
    elsewhere,
    held,
    held_shares,
    unconfirmed,
    unsettled,
)
from sgpud.core.sharing.rules import Partition
from tests.core.values import OTHER, POOL, checkpoint, grant, holder, some_numbers, uuid

ONE, TWO = IntSet.of([1]), IntSet.of([1, 2])
shares = st.dictionaries(st.sampled_from([uuid(0), uuid(1)]), some_numbers)
sources = st.lists(shares, max_size=4)


@given(sources, sources)
def test_what_is_held_is_all_that_books_and_grants_name(
    named: list[dict[str, IntSet]], given_out: list[dict[str, IntSet]]
) -> None:
    found = held(checkpoint(*map(holder, named)), map(grant, given_out))
    for gpu in (uuid(0), uuid(1)):
        parts = [one.get(gpu, IntSet()) for one in (*named, *given_out)]
        expected = {number for part in parts for number in part}
        assert set(found.get((POOL, gpu), IntSet())) == expected


@given(sources, sources, st.integers(1, 9))
def test_a_share_is_counted_once_however_often_it_is_named(
    named: list[dict[str, IntSet]], given_out: list[dict[str, IntSet]], parts: int
) -> None:
    known = checkpoint(*(holder(one, per_gpu=parts) for one in named))
    grants = [grant(one, per_gpu=parts) for one in given_out]
    found = held_shares(known, grants)
    for key, numbers in held(known, grants).items():
        assert found.get(key, ()) == ((HeldShares(len(numbers), parts),) if numbers else ())


@given(sources, st.permutations(range(4)))
def test_what_counts_does_not_depend_on_the_order(
    named: list[dict[str, IntSet]], order: list[int]
) -> None:
    holders = [holder(one, per_gpu=number + 1) for number, one in enumerate(named)]
    shuffled = [holders[number] for number in order if number < len(holders)]
    assert held_shares(checkpoint(*holders), ()) == held_shares(checkpoint(*shuffled), ())


def test_where_terms_differ_the_larger_size_and_the_finer_cut_count() -> None:
    coarse, fine = holder({uuid(0): TWO}, per_gpu=10), holder({uuid(0): ONE}, per_gpu=100)
    memory = evolve(holder({uuid(0): ONE}, per_gpu=40), sizes={uuid(0): 2**30})
    assert held_shares(checkpoint(coarse, fine), ())[POOL, uuid(0)] == (
        HeldShares(1, 100),
        HeldShares(1, 10),
    )
    found = held_shares(checkpoint(coarse, fine, memory), ())[POOL, uuid(0)]
    assert found == (HeldShares(1, 40, 2**30), HeldShares(1, 10))


def test_a_share_is_a_part_of_what_its_gpu_was_cut_into_when_it_was_given() -> None:
    known = checkpoint(holder({uuid(0): ONE}, per_gpu=100), holder({uuid(0): TWO}, resource=OTHER))
    found, partition = held_shares(known, ()), Partition(4, 0, 40)
    assert elsewhere((OTHER, uuid(0)), partition, found) == Fraction(1, 100)
    assert elsewhere((POOL, uuid(0)), partition, found) == Fraction(2, 4)
    assert elsewhere((POOL, uuid(1)), partition, found) == 0


def test_memory_that_is_held_is_a_part_of_what_can_be_used() -> None:
    known = checkpoint(evolve(holder({uuid(0): TWO}, per_gpu=40), sizes={uuid(0): 3}))
    found = held_shares(known, ())
    assert elsewhere((OTHER, uuid(0)), Partition(4, 0, 40), found) == Fraction(6, 40)
    assert elsewhere((POOL, uuid(0)), Partition(4, 10, 40), found) == Fraction(6, 40)
    assert elsewhere((POOL, uuid(0)), Partition(13, 3, 40), found) == 0


def test_where_nobody_knows_any_terms_a_share_is_the_whole_gpu() -> None:
    found = held_shares(checkpoint(holder({uuid(0): ONE})), ())
    assert elsewhere((OTHER, uuid(0)), Partition(0), found) == 1


def test_a_grant_is_settled_by_books_written_ten_seconds_later_and_not_before() -> None:
    given_out = grant({uuid(0): ONE}, at=1000.0)
    for written in (0.0, 990.0, 1009.9):
        assert unsettled([given_out], checkpoint(written=written), 1010.0) == (given_out,)
    assert unsettled([given_out], checkpoint(written=1000.0 + SETTLED_AFTER), 1010.0) == ()


def test_a_checkpoint_that_is_absent_ends_no_grant() -> None:
    given_out = grant({uuid(0): ONE}, at=1000.0)
    assert unsettled([given_out], CheckpointState(), 1_000_000.0) == (given_out,)


def test_books_that_name_the_holder_end_a_grant_at_once() -> None:
    """The end of a pod that lived for a second is seen with the next books, not 10 s later."""
    given_out = grant({uuid(0): TWO, uuid(1): ONE}, at=1000.5)
    named = evolve(holder({uuid(0): ONE, uuid(1): ONE}), since=1000.0)
    (rest,) = unsettled([given_out], checkpoint(named, written=1000.6), 1001.0)
    assert rest.shares == {uuid(0): TWO - ONE}
    # Whoever held the same shares before: other books, or another second.
    for older in (
        checkpoint(named, written=1000.4),
        checkpoint(evolve(named, since=999.0), written=1000.6),
        checkpoint(evolve(named, resource=OTHER), written=1000.6),
    ):
        assert held(CheckpointState(), unsettled([given_out], older, 1001.0)) == held(
            CheckpointState(), [given_out]
        )


def test_after_the_clock_was_set_back_a_grant_ends_as_if_given_then() -> None:
    (kept,) = unsettled([grant({uuid(0): ONE}, at=1000.0)], checkpoint(written=995.0), 500.0)
    assert kept.at == 500.0
    assert unsettled([kept], checkpoint(written=509.0), 511.0) == (kept,)
    assert unsettled([kept], checkpoint(written=510.0), 511.0) == ()


def test_a_grant_waits_for_the_kubelet_once_it_is_old_and_not_in_the_books() -> None:
    given_out = grant({uuid(0): TWO}, at=1000.0)
    assert not unconfirmed([given_out], checkpoint(), 1009.0)
    assert unconfirmed([given_out], checkpoint(), 1010.0)
    assert unconfirmed([given_out], checkpoint(holder({uuid(0): ONE})), 1010.0)
    assert unconfirmed([given_out], checkpoint(holder({uuid(0): TWO}, resource=OTHER)), 1010.0)
    assert not unconfirmed([given_out], checkpoint(holder({uuid(0): TWO})), 1010.0)
    assert not unconfirmed([], checkpoint(), 1010.0)


@given(st.lists(st.tuples(shares, st.sampled_from([2, 3]), st.floats(100.0, 103.0)), max_size=8))
def test_a_storm_of_grants_says_the_same_in_one_per_gpu_terms_and_second(
    given_out: list[tuple[dict[str, IntSet], int, float]],
) -> None:
    grants = [grant(found, per_gpu=parts, at=at) for found, parts, at in given_out]
    fewer = unsettled(grants, CheckpointState(), 103.0)
    assert held(CheckpointState(), fewer) == held(CheckpointState(), grants)
    assert held_shares(CheckpointState(), fewer) == held_shares(CheckpointState(), grants)
    assert unsettled(fewer, CheckpointState(), 103.0) == fewer
    assert len(fewer) <= 2 * 2 * 4
    for end in (109.5, 110.0, 112.0):
        ended = checkpoint(written=end)
        assert set(held(ended, unsettled(grants, ended, end))) <= set(
            held(ended, unsettled(fewer, ended, end))
        )
