"""Faults say what a person should do; tries get rarer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgpud.gpus.nvml.faults import BACK_OFF_MOST, GpuFault, GpuFaultKind, back_off
from sgpud.gpus.nvml.probe.protocol import HOT_PLUGGED, STATUS


def test_back_off_doubles_from_one_second_to_thirty() -> None:
    assert [back_off(attempt) for attempt in range(7)] == [1, 2, 4, 8, 16, 30, 30]


@given(st.integers())
def test_back_off_is_bounded_for_any_number(attempt: int) -> None:
    assert 1 <= back_off(attempt) <= BACK_OFF_MOST


@pytest.mark.parametrize("kind", GpuFaultKind)
def test_every_fault_has_advice_in_one_line(kind: GpuFaultKind) -> None:
    text = str(GpuFault(kind, "what was said", "GPU-1"))
    assert text.startswith(kind.value)
    assert "what was said" in text
    assert "GPU-1" in text
    assert text.endswith(GpuFault(kind).advice)
    assert "\n" not in text


def test_no_two_faults_have_the_same_advice() -> None:
    assert len({GpuFault(kind).advice for kind in GpuFaultKind}) == len(GpuFaultKind)


def test_every_fault_of_the_probe_is_known_and_has_its_own_exit_status() -> None:
    assert set(STATUS) <= {kind.value for kind in GpuFaultKind}
    assert len({*STATUS.values(), HOT_PLUGGED}) == len(STATUS) + 1
