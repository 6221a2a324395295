"""Facts of NVIDIA's XID catalogue, in our own form: what sgpud's table is compared with.

Read in November 2026 in the catalogue's edition for drivers up to R580
(docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html): number, bucket of the immediate
action, and the first architecture that it applies to (8 Ampere, 9 Hopper, 10 Blackwell). An empty
bucket: the catalogue names no action.
"""

NEWEST: dict[int, tuple[str, int]] = {
    137: ("IGNORE", 8),
    139: ("RESTART_APP", 10),
    140: ("RESET_GPU", 8),
    141: ("IGNORE", 9),
    142: ("CONTACT_SUPPORT", 10),
    143: ("RESET_GPU", 9),
    144: ("WORKFLOW_NVLINK5_ERR", 10),
    145: ("WORKFLOW_NVLINK5_ERR", 10),
    146: ("WORKFLOW_NVLINK5_ERR", 10),
    147: ("WORKFLOW_NVLINK5_ERR", 10),
    148: ("WORKFLOW_NVLINK5_ERR", 10),
    149: ("WORKFLOW_NVLINK5_ERR", 10),
    150: ("WORKFLOW_NVLINK5_ERR", 10),
    151: ("RESTART_VM", 9),
    155: ("RESET_GPU", 10),
    156: ("RESET_GPU", 9),
    157: ("IGNORE", 9),
    158: ("RESET_GPU", 8),
    159: ("CHECK_UVM", 10),
    160: ("IGNORE", 10),
    161: ("IGNORE", 10),
    162: ("", 10),
    163: ("", 10),
    164: ("", 10),
    165: ("", 10),
    166: ("", 10),
    167: ("", 9),
    168: ("", 8),
    169: ("", 9),
    170: ("", 10),
    171: ("", 8),
    172: ("", 8),
}
"""Every XID from 137 on that applies to a data centre GPU, but 154, which reports the recovery
action."""
UNUSED = (138, 152, 153)
"""The catalogue applies them to no GPU."""
