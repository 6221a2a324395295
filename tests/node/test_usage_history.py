"""The last hour of the GPUs."""

from __future__ import annotations

import tracemalloc

from twisted.internet.task import Clock

from sgpud.core.gpu.observations import Sample
from sgpud.core.status.history import LastHour
from sgpud.node.usage_history import MOST, STEP, STEPS, UsageHistory

GPU = "GPU-1"
GIB = 2**30


def measured(used: int | None, utilisation: int | None = None, uuid: str = GPU) -> Sample:
    return Sample(uuid, used=used, utilisation=utilisation)


def test_nothing_is_known_at_first() -> None:
    found = UsageHistory(Clock()).view()
    assert (found.every, found.steps, dict(found.gpus)) == (STEP, STEPS, {})
    assert STEP * STEPS == 3600


def test_each_step_has_its_highest_values() -> None:
    clock = Clock()
    history = UsageHistory(clock)
    for used, utilisation in ((3, 10), (5, None), (4, 30)):
        history.samples([measured(used * GIB, utilisation)])
        clock.advance(STEP / 4)
    clock.advance(STEP)
    history.samples([measured(0, 0)])
    assert history.view().gpus == {GPU: LastHour((5 * GIB, 0), (30, 0))}


def test_what_was_not_measured_is_a_gap() -> None:
    clock = Clock()
    history = UsageHistory(clock)
    history.samples([measured(GIB, 50)])
    clock.advance(2 * STEP)
    history.samples([measured(None, 20)])
    history.samples([Sample(GPU, error="GPU is lost")])
    clock.advance(STEP)
    assert history.view().gpus == {
        GPU: LastHour((GIB, None, None, None), (50, None, 20, None)),
    }


def test_an_hour_is_kept_and_no_more() -> None:
    clock = Clock()
    history = UsageHistory(clock)
    for step in range(3 * STEPS + 7):
        history.samples([measured(step)])
        clock.advance(STEP)
    used = history.view().gpus[GPU].used
    assert used == (*range(2 * STEPS + 8, 3 * STEPS + 7), None)
    assert len(used) == STEPS


def test_after_a_long_silence_nothing_old_is_left() -> None:
    clock = Clock()
    history = UsageHistory(clock)
    for _ in range(STEPS):
        history.samples([measured(GIB)])
        clock.advance(STEP)
    clock.advance(STEP * STEPS)
    assert history.view().gpus == {}
    history.samples([measured(2 * GIB)])
    assert history.view().gpus[GPU].used == (*[None] * (STEPS - 1), 2 * GIB)


def test_it_costs_less_than_a_mebibyte_whatever_comes_and_goes() -> None:
    history = UsageHistory(Clock())
    uuids = [f"MIG-{number}" for number in range(2 * MOST)]
    tracemalloc.start()
    try:
        for uuid in uuids:
            history.samples([measured(GIB, 7, uuid)])
        cost, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cost < 2**20
    assert list(history.view().gpus) == uuids[MOST:]
