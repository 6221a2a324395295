"""A burst of events is said in few lines, and every event of it is counted."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from sgpud.gpus.nvml.probe.events import MOST_KINDS, BurstCounter
from sgpud.gpus.nvml.probe.protocol import COALESCE


def xid(number: int) -> dict[str, Any]:
    return {"message": "xid", "gpu": "GPU-1", "number": number, "gi": None, "ci": None}


def test_the_first_event_is_reported_and_the_next_are_counted() -> None:
    clock = Clock()
    counted = BurstCounter(clock.seconds)
    assert [counted.is_first(xid(31)) for _ in range(3)] == [True, False, False]
    assert counted.is_first(xid(79))
    assert counted.overdue() == []
    assert counted.due(1.0) == COALESCE
    clock.advance(COALESCE)
    assert counted.overdue() == [(xid(31), 2)]
    assert counted.due(1.0) == 1.0
    assert counted.is_first(xid(31))


def test_it_is_full_with_many_different_ones() -> None:
    clock = Clock()
    counted = BurstCounter(clock.seconds)
    for number in range(MOST_KINDS):
        assert not counted.full
        assert counted.is_first(xid(number))
    assert counted.full
    clock.advance(COALESCE)
    assert counted.overdue() == []
    assert not counted.full


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from([0.0, 0.05, 0.3])), max_size=50))
def test_no_event_is_lost_or_reported_twice_in_a_window(
    events: list[tuple[int, float]],
) -> None:
    clock = Clock()
    counted = BurstCounter(clock.seconds)
    said: list[tuple[float, int, int]] = []

    def turn() -> None:
        said.extend((clock.seconds(), each["number"], n) for each, n in counted.overdue())

    for number, pause in events:
        if counted.is_first(xid(number)):
            said.append((clock.seconds(), number, 1))
        turn()
        clock.advance(pause)
        turn()
    clock.advance(1)
    turn()
    for number in (1, 2, 3):
        assert sum(n for _, each, n in said if each == number) == [e for e, _ in events].count(
            number
        )
    moments = {(round(at / COALESCE, 6) // 1, number) for at, number, _ in said}
    assert len(said) <= 3 * len(moments)
