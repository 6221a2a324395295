"""What is counted of the NVML processes and their calls."""

from sgpud.core.status.view import CallTimes
from sgpud.gpus.nvml.monitor import CallCounts


def test_processes_and_their_calls_are_added_up() -> None:
    counts = CallCounts()
    assert counts.counted[0] == 0
    for _ in range(2):
        counts.started()
        counts.took([("sample", 2, 0.5), ("read", 1, 0.25)])
    assert counts.counted == (2, (CallTimes("read", 2, 0.5), CallTimes("sample", 4, 1.0)))
