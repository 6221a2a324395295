"""Bars of a GPU's memory and utilisation on a terminal."""

from __future__ import annotations

from typing import Any

from attrs import asdict, evolve

from sgpud.cli.screens.bars import LEAST, bars
from sgpud.cli.screens.status import StatusStyle, status
from sgpud.cli.tables import width
from sgpud.core.status.gpus import GpuStateView
from sgpud.core.status.view import document
from tests.node_view import CONTAINER, GIB, STATE, VIEW

HALF = evolve(STATE, memory=40 * GIB, used=20 * GIB, utilisation=50, containers=())


def drawn(gpu: GpuStateView, columns: int = 80, **changes: Any) -> str:
    return bars(asdict(evolve(gpu, **changes)), columns)


def test_half_full_is_half_a_bar() -> None:
    line = drawn(HALF)
    assert width(line) == 80
    memory, busy = line.split("  BUSY[")
    assert memory.startswith("  MEM[||||||")
    assert memory.endswith("20GiB/40GiB]")
    assert busy.endswith("50%]")
    assert (memory.count("|"), busy.count("|")) == (23, 10)
    assert ":" not in line


def test_what_is_granted_and_not_used_is_drawn_apart() -> None:
    holder = evolve(CONTAINER, granted=15 * GIB, used=5 * GIB)
    memory = drawn(HALF, containers=(holder,)).split("  BUSY[")[0]
    # 20 GiB are used, and 10 more are granted.
    assert memory.count("|") == 2 * memory.count(":") + 1


def test_more_than_there_is_is_said() -> None:
    holder = evolve(CONTAINER, granted=35 * GIB, used=5 * GIB)
    assert "20GiB/40GiB !10GiB too much]" in drawn(HALF, containers=(holder,))


def test_what_is_not_measured_has_no_bar() -> None:
    assert drawn(HALF, used=None, utilisation=None) == ""
    assert "BUSY" not in drawn(HALF, utilisation=None)
    assert width(drawn(HALF, utilisation=None)) == 80
    assert "MEM" not in drawn(HALF, memory=None)
    assert "MEM" not in drawn(HALF, memory=0)


def test_a_narrow_terminal_has_none() -> None:
    for columns in range(200):
        line = drawn(HALF, columns)
        assert width(line) in {0, columns}
        assert bool(line) == (columns >= 2 * LEAST + 4)


def test_the_screen_has_them_only_where_they_are_asked_for() -> None:
    found = document(VIEW)
    assert "MEM[" not in "\n".join(status(found, StatusStyle(80)))
    assert "MEM[" not in "\n".join(status(found, StatusStyle(0, bars=True)))
    assert "MEM[" in "\n".join(status(found, StatusStyle(80, bars=True, folded=True)))


def test_no_line_is_cut_at_80_columns() -> None:
    advice = "drain the node, then reset the GPU: nvidia-smi --gpu-reset -i 0; " * 3
    sick = evolve(STATE, health="unhealthy", reason="XID 48: double-bit ECC", advice=advice)
    strange = evolve(STATE.processes[0], owner="unknown", problem="cannot read /proc: " + advice)
    view = evolve(VIEW, gpus=(evolve(sick, processes=(strange,)),))
    lines = status(document(view), StatusStyle(80, bars=True))
    assert max(map(width, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert " ".join(f"to do: {advice}".split()) in text
    assert " ".join(f"owner of a process is unknown: cannot read /proc: {advice}".split()) in text
