"""The table of XIDs agrees with NVIDIA's catalogue."""

import pytest

from sgpud.core.health.xids import BY_NUMBER, RECOVERY_CHANGED, Remedy
from tests.core.health.catalogue import NEWEST, UNUSED

ACTIONS = {
    "IGNORE": Remedy.IGNORE,
    "RESTART_APP": Remedy.RESTART,
    "RESET_GPU": Remedy.RESET,
    "RESTART_VM": Remedy.REBOOT,
    "WORKFLOW_NVLINK5_ERR": Remedy.PROBE,
}


@pytest.mark.parametrize("number", NEWEST)
def test_each_newer_xid_has_the_catalogues_action(number: int) -> None:
    bucket, first = NEWEST[number]
    found = BY_NUMBER[number]
    assert found.bucket == bucket
    assert found.remedy is ACTIONS.get(bucket, found.remedy)
    assert found.concerns((first, 0))
    assert first == 8 or not found.concerns((first - 1, 0))


def test_nothing_is_made_of_what_applies_to_no_gpu() -> None:
    assert not set(UNUSED) & BY_NUMBER.keys()
    assert RECOVERY_CHANGED not in BY_NUMBER
    assert max(BY_NUMBER) == max(NEWEST)
