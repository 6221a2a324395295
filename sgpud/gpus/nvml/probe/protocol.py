"""What the child process and its parent agree on. Imports nothing: the child has to stay small.

The child writes one JSON object per line to its standard output:

    {"type": "begin", "call": C, "gpu": UUID, "index": N}         calls that may not come back
    {"type": "end", "took": {C: [TIMES, SECONDS]}}                they did; a pause, PERIOD at most
    {"type": "inventory", "driver": V, "nvml": V, "gpus": [...]}  at first, and when it changed
    {"type": "gpu-error", "gpu": UUID, "error": TEXT}             a GPU that fails by itself
    {"type": "samples", "gpus": [{"uuid": UUID, "used": BYTES, "total": BYTES, "utilisation": %,
     "recovery": ACTION, "ecc": COUNT, "error": TEXT}]}           each period; null: not told
    {"type": "processes", "gpus": [{"uuid": UUID, "processes": [[PID, BYTES, %], ...],
     "error": TEXT}]}                                             with them; error: why not told
    {"type": "fault", "kind": K, "detail": TEXT}                  the last line: it ends by itself

and, at any time between two such lines, what happens to a GPU:

    {"type": "xid", "gpu": UUID, "number": N, "gi": N, "ci": N, "count": N}
    {"type": "ecc", "gpu": UUID, "gi": N, "ci": N, "count": N}
    {"type": "error", "gpu": UUID, "error": TEXT}                 NVML's calls for it begin to fail

A GPU without a known UUID is named by its index; a call to no single GPU has null for both. An
event names the physical GPU, and the MIG instance (null: all of it). The same event comes as one
line with a count when it comes again within COALESCE. A physical GPU has a sample of its own, and
so has each of its MIG instances, for their memory.

It reads one kind of line from its standard input, `measure-every SECONDS`. What is to be logged
goes to standard error. It ends when its standard input does, and with its parent.
"""

PERIOD = 4.0
"""Seconds between two readings of the inventory: a new layout of MIG instances shows in five."""
PLUGGED = 1.0
"""Seconds between two looks at which GPUs the driver serves, which costs no call into NVML."""
MEASURE_EVERY = 5.0
"""Seconds between two samples, until told otherwise."""
COALESCE = 0.1
"""Seconds in which the same event of the same GPU is said once more at most."""
STATUS = {
    "no-library": 10,
    "no-driver": 11,
    "version-mismatch": 12,
    "no-permission": 13,
    "no-gpu": 14,
    "hung": 15,
    "unknown": 16,
}
"""The exit status that goes with each kind of fault."""
HOT_PLUGGED = 20
"""The exit status when GPUs came or went: NVML counts them once in the life of a process."""
