"""The protocol between the child process and its parent. Imports nothing, to keep the child small.

The child writes one JSON object per line to its standard output:

    {"type": "begin", "call": C, "gpu": UUID, "index": N}         calls that may hang
    {"type": "end", "took": {C: [TIMES, SECONDS]}}                they returned; now a pause
    {"type": "inventory", "driver": V, "nvml": V, "gpus": [...],
     "unreadable": [{"index": N, "uuid": UUID, "pci": ADDRESS,
     "reason": TEXT}]}                                            at first and after each change
    {"type": "gpu-error", "gpu": UUID, "error": TEXT}             a GPU that fails on its own
    {"type": "samples", "gpus": [{"uuid": UUID, "used": BYTES, "total": BYTES, "utilisation": %,
     "recovery": ACTION, "ecc": COUNT, "ecc_total": COUNT,
     "remap": [PENDING, FAILED], "error": TEXT}]}                 each period; null: not reported
    {"type": "processes", "gpus": [{"uuid": UUID, "processes": [[PID, BYTES, %], ...],
     "error": TEXT}]}                                             with them; error: why not reported
    {"type": "fault", "kind": K, "detail": TEXT}                  the last line: the child exits

and, at any time between two such lines, the events of a GPU:

    {"type": "xid", "gpu": UUID, "number": N, "gi": N, "ci": N, "count": N}
    {"type": "ecc", "gpu": UUID, "gi": N, "ci": N, "count": N}
    {"type": "error", "gpu": UUID, "error": TEXT}                 NVML's calls for it start to fail

A GPU without a known UUID is named by its index; a call to no particular GPU has null for both. An
event names the physical GPU and the MIG instance (null: all of it). An event that repeats within
COALESCE is one more line, with a count. A physical GPU has a sample of its own, and
so has each of its MIG instances, for their memory.

It reads one kind of line from its standard input, `measure-every SECONDS`. Text to be
logged goes to standard error. The child exits when its standard input ends, and with its parent.
"""

PERIOD = 4.0
"""Seconds between two readings of the inventory: new MIG instances show within five."""
PLUGGED = 1.0
"""Seconds between two checks of which GPUs the driver serves, without a call into NVML."""
MEASURE_EVERY = 5.0
"""Seconds between two samples, by default."""
COALESCE = 0.1
"""Seconds in which the same event of the same GPU is reported at most twice."""
STATUS = {
    "no-library": 10,
    "no-driver": 11,
    "version-mismatch": 12,
    "no-permission": 13,
    "no-gpu": 14,
    "hung": 15,
    "unknown": 16,
}
"""The exit status for each kind of fault."""
EMPTY_MIG = "MIG mode without instances: nothing to share"
"""Why a GPU with nothing wrong is not shared."""
HOT_PLUGGED = 20
"""The exit status when GPUs were added or removed: NVML counts them once per process."""
