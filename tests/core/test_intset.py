from hypothesis import given
from hypothesis import strategies as st

from sgpud.core.intset import IntSet
from tests.core.values import small, some_numbers

sets = st.sets(small)


@given(sets, sets)
def test_numbers_are_what_python_s_sets_are(one: set[int], two: set[int]) -> None:
    a, b = IntSet.of(one), IntSet.of(two)
    assert (list(a), len(a), bool(a)) == (sorted(one), len(one), bool(one))
    assert set(a | b) == one | two
    assert IntSet.union([a, b, a]) == a | b
    assert set(a & b) == one & two
    assert set(a - b) == one - two
    assert (a == b) == (one == two)
    assert {number for number in range(50) if number in a} == one


@given(st.lists(small))
def test_neither_order_nor_repetition_matters(numbers: list[int]) -> None:
    assert IntSet.of(numbers) == IntSet.of(reversed(numbers)) == IntSet.of(numbers + numbers)


@given(some_numbers, some_numbers, some_numbers)
def test_ranges_are_ascending_apart_and_never_empty(a: IntSet, b: IntSet, c: IntSet) -> None:
    for found in (a, a | b, a & b, a - b, (a | b) - c, a.lowest(3), a.unused(5), (a - b).unused(2)):
        edges = [edge for pair in found.ranges for edge in pair]
        assert edges == sorted(set(edges))


@given(small, small)
def test_a_span_has_what_a_range_has(start: int, stop: int) -> None:
    assert list(IntSet.span(start, stop)) == list(range(start, stop))
    assert IntSet.span(start, stop) == IntSet.of(range(start, stop))


@given(sets, st.integers(-3, 50))
def test_lowest_takes_from_the_front(numbers: set[int], count: int) -> None:
    assert list(IntSet.of(numbers).lowest(count)) == sorted(numbers)[: max(0, count)]


@given(sets, st.integers(0, 50))
def test_unused_are_the_smallest_that_are_not_there(numbers: set[int], count: int) -> None:
    free = [number for number in range(100) if number not in numbers]
    assert list(IntSet.of(numbers).unused(count)) == free[:count]


def test_a_million_numbers_are_one_range() -> None:
    many = IntSet.span(0, 1_000_000)
    assert len(many) == 1_000_000
    assert (many - IntSet.of([500_000])).ranges == ((0, 500_000), (500_001, 1_000_000))


def test_only_integers_are_in_a_set() -> None:
    assert "1" not in IntSet.of([1])
