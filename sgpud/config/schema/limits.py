"""The keys that say how the memory of containers is limited and watched: [limits]."""

from __future__ import annotations

from sgpud.config.schema.formats import amount_or_always, duration, pod_glob, size
from sgpud.config.schema.kinds import Boolean, Key, ListOf, Number, Text, choice
from sgpud.core.limits.settings import (
    OVERUSE_ANNOTATION,
    SPARE,
    LimitSettings,
    MemoryLimits,
    OveruseAction,
)
from sgpud.core.units import exact_size, format_duration

_DEFAULT = LimitSettings()

LIMITS = (
    Key(
        "memory",
        choice(MemoryLimits),
        _DEFAULT.memory.value,
        "Whether containers that hold memory shares get a memory limit, which the driver enforces."
        " NVIDIA's container toolkit sets it for each container, or sgpud's own helper"
        " (sgpud-limits.service) for each pod:\n"
        '- "auto": where that works: driver 615 or later, cgroup v2, a whole GPU, and the helper,'
        " or toolkit 1.20.1 or later with any method but device-nodes; elsewhere containers run"
        " without a limit\n"
        '- "require": always; a container whose memory cannot be limited waits, and its event and'
        " `sgpud explain` say why\n"
        '- "off": never\n'
        "`sgpud status` shows for every GPU what enforces its limits, and what is missing. This"
        " protects pods from each other's mistakes; it is not a security boundary.",
    ),
    Key(
        "limit_factor",
        Number(1, 4),
        _DEFAULT.factor,
        "A container's limit is the memory that its shares represent times this, at most the whole"
        " GPU. With more than 1, pods can together use more than the GPU has; overuse below reports"
        " it.",
    ),
    Key(
        "memory_context",
        Text('size, e.g. "600MiB"', size()),
        exact_size(_DEFAULT.context),
        "Added to a limit for each container: CUDA itself takes 440 to 816 MiB in each"
        " process (measured with driver 615), which counts within the limit.",
    ),
    Key(
        "overuse",
        choice(OveruseAction),
        _DEFAULT.overuse.value,
        "What sgpud does about a container that uses more GPU memory than its shares represent, or"
        " for shares without a size more than [sharing] expected_memory:\n"
        '- "report": log it, show it in status, metrics and explain, and write an Event on the pod'
        " where sgpud has credentials for the API server\n"
        '- "evict": the same, and evict the pod of the one that exceeds its grant by more than any'
        " other container of the GPU. PodDisruptionBudgets are honoured. It needs [kubelet]"
        " api_server, and the right to create pods/eviction\n"
        '- "off": nothing\n'
        "Static pods, and pods with a critical priority or the annotation"
        f' {OVERUSE_ANNOTATION}: "{SPARE}" are never evicted.',
    ),
    Key(
        "dry_run",
        Boolean(),
        _DEFAULT.dry_run,
        'With overuse = "evict": only say in log, status and explain which pods would be evicted.'
        " Set it to false once these are the right ones.",
    ),
    Key(
        "cool_down",
        Text('duration, e.g. "60s"', duration(5, 3600)),
        format_duration(_DEFAULT.cool_down),
        'With overuse = "evict": for how long after an eviction for a GPU, and after the start of'
        " sgpud, there is no other one for the same GPU. It begins when the evicted pod has freed"
        " its memory.",
    ),
    Key(
        "tolerance",
        Text('size, e.g. "512MiB"', size()),
        exact_size(_DEFAULT.tolerance),
        "With overuse: by how much a container may exceed that.",
    ),
    Key(
        "over_for",
        Text('duration, e.g. "30s"', duration(0, 3600)),
        format_duration(_DEFAULT.over_for),
        "With overuse: for how long every measurement has to show it.",
    ),
    Key(
        "pressure",
        Text('percentage or size, e.g. "95%", or "always"', amount_or_always),
        str(_DEFAULT.pressure),
        "With overuse: it counts only while more than this of the GPU's memory is used, since"
        ' nobody lacks memory before. "always": it counts whatever is used.',
    ),
    Key(
        "spare",
        ListOf(
            Text('NAMESPACE/POD, e.g. "kube-system/*"', pod_glob),
            'list of strings, e.g. ["kube-system/*"]',
            1000,
        ),
        list(_DEFAULT.spare),
        "With overuse: pods that are reported, but never evicted or named as the one to stop, as"
        " NAMESPACE/POD with wildcards * and ?.",
    ),
)
