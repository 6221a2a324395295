"""The keys that say how the memory of containers is limited: [limits]."""

from __future__ import annotations

from sgpud.config.schema.kinds import Key, Number, choice
from sgpud.core.limits.settings import LimitSettings, MemoryLimits

_DEFAULT = LimitSettings()

LIMITS = (
    Key(
        "memory",
        choice(MemoryLimits),
        _DEFAULT.memory.value,
        "Whether containers that hold memory shares get a memory limit, which NVIDIA's container"
        " toolkit applies and the driver enforces:\n"
        '- "auto": where that works: driver 615 or later, toolkit 1.20.1 or later, cgroup v2, a'
        " whole GPU, and any method but device-nodes\n"
        '- "off": never\n'
        "`sgpud status` shows for every GPU what enforces its limits, and what is missing. This"
        " protects pods from each other's mistakes; it is not a security boundary.",
    ),
    Key(
        "limit_factor",
        Number(1, 4),
        _DEFAULT.factor,
        "A container's limit is the memory that its shares represent times this, at most the whole"
        " GPU. With more than 1, pods can together use more than the GPU has.",
    ),
)
