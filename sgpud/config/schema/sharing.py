"""The keys that say what is shared, and how: [gpus], [sharing] and [[gpu]]."""

from __future__ import annotations

from sgpud.config.schema.formats import (
    amount,
    amount_or_nothing,
    duration,
    gpu_entry,
    resource_name,
    size,
)
from sgpud.config.schema.kinds import Boolean, Integer, Key, ListOf, Text, choice
from sgpud.core.sharing.rules import (
    DEFAULT_FACTOR,
    DEFAULT_RESOURCE,
    LARGE_STATUS,
    Advertise,
    Multiple,
    Placement,
)

_ENTRY = Text('string, e.g. "NVIDIA A100*"', gpu_entry)
_ENTRIES = ListOf(_ENTRY, 'list of strings, e.g. ["NVIDIA A100*", "0"]', 1000)
_RESOURCE = Text('resource name, e.g. "example.com/shared-gpu"', resource_name)
_FACTOR = Integer(1, 10_000)
_SMALLEST = 64 * 2**20
_SHARE = Text('size, e.g. "1GiB"', size(_SMALLEST))
_SIZE = Text('size, e.g. "2GiB"', size())
_AMOUNT_WORDS = 'percentage or size, e.g. "5%" or "2GiB"'

GPUS = (
    Key(
        "allow",
        _ENTRIES,
        ["*"],
        "The GPUs that sgpud may share. An entry is one of the following; `sgpud gpus` shows them"
        " for every GPU of the node:\n"
        '- a UUID ("GPU-..." or "MIG-..."), ignoring case and with the prefix or without; that of a'
        " physical GPU includes its MIG instances\n"
        '- an index ("0")\n'
        '- a PCI address ("0000:3b:00.0")\n'
        '- a product name with wildcards * and ?, ignoring case ("NVIDIA A100*")\n'
        "An entry that matches no GPU of the node is logged as a warning.",
    ),
    Key(
        "deny",
        _ENTRIES,
        [],
        "GPUs that sgpud does not share, written as in allow. Deny wins over allow. If a GPU is"
        " denied while pods hold shares of it, they keep them; its free shares are removed.",
    ),
)

SHARING = (
    Key(
        "resource",
        _RESOURCE,
        DEFAULT_RESOURCE,
        "The extended resource that pods request under resources.limits, as domain/name. When it"
        " changes, pods that hold shares of the old resource keep them, and the node drops the old"
        " resource after the last of them has ended.",
    ),
    Key(
        "duplication_factor",
        _FACTOR,
        DEFAULT_FACTOR,
        "How many shares each GPU has, unless share_memory is set: this many containers with one"
        " share each fit on it. A share is a place on the GPU, not an amount of its memory: nothing"
        " prevents one container from using all of it. If the number is reduced, shares that pods"
        " hold stay until those pods end.",
        unit="shares per GPU",
    ),
    Key(
        "share_memory",
        _SHARE,
        "0",
        "How much memory one share represents. With a size, each GPU has as many shares as fit into"
        " its memory, less what the driver reserves and reserve_memory, and duplication_factor is"
        ' ignored: a pod that requests 12 of "1GiB" gets 12 GiB of one GPU, as SGPUD_MEMORY_BYTES'
        " says in its environment. [limits] says what keeps it within that. If the size changes,"
        ' pods keep what they have. "0": shares are places. At least 64MiB.',
    ),
    Key(
        "reserve_memory",
        _SIZE,
        "0",
        "Memory of each GPU that is not divided into shares, with share_memory.",
    ),
    Key(
        "advertise",
        choice(Advertise),
        Advertise.LARGEST.value,
        "With share_memory, which free shares pods can get:\n"
        '- "largest": those of the one GPU with the most room. The node then advertises exactly the'
        " largest request that fits, and pods that do not fit stay Pending. After a placement it"
        " takes up to 10 s to advertise the next GPU\n"
        '- "all": those of every GPU. Each request goes to the GPU with the least room that fits'
        " it; one that fits no single GPU is refused on the node: its pod fails\n"
        "docs/placement.md compares both with numbers.",
    ),
    Key(
        "allow_large_status",
        Boolean(),
        default=False,
        doc=f"Whether a GPU may have more than {LARGE_STATUS} memory shares. The status of a pod"
        " lists every share id that it holds, so many shares make large objects in the cluster.",
    ),
    Key(
        "placement",
        choice(Placement),
        Placement.SPREAD.value,
        "Which GPU the next share is taken from, by the fraction of its shares that is held, then"
        " by measured free memory. Memory shares always go where they leave the least room.\n"
        '- "spread": the least used GPU, so that pods disturb each other least\n'
        '- "packed": the most used GPU with room, so that other GPUs stay empty',
    ),
    Key(
        "multiple",
        choice(Multiple),
        Multiple.DISTINCT.value,
        "What a request of one container for n shares means; memory shares always come from one"
        " GPU:\n"
        '- "distinct": n different GPUs; more than the node has can never be granted\n'
        '- "same": n shares of one GPU; for a multiple of the shares that a GPU has, whole GPUs\n'
        '- "any": n shares of any GPUs\n'
        '- "refuse": a container may request one share only\n'
        "A request that cannot be granted this way is refused on the node: the pod fails with"
        " UnexpectedAdmissionError and a message that names this rule, and its controller"
        " recreates it at once.",
    ),
    Key(
        "full_guard",
        Boolean(),
        default=False,
        doc="Whether a GPU whose memory is full, as measured, gets no more pods: its free shares"
        " are withheld until there is room again. Not for memory shares. This is not a hard"
        " limit: pods can still be bound for up to 10 s, and running pods continue.",
    ),
    Key(
        "memory_headroom",
        Text(_AMOUNT_WORDS, amount),
        "5%",
        "With full_guard: a GPU with less free memory than this is full.",
    ),
    Key(
        "memory_resume",
        Text(f"{_AMOUNT_WORDS}, or an empty string", amount_or_nothing),
        "",
        "With full_guard: a full GPU gets pods again after more than this has been free for"
        " resume_after. Must be more than memory_headroom. Empty: twice memory_headroom.",
    ),
    Key(
        "resume_after",
        Text('duration, e.g. "30s"', duration(0, 3600)),
        "30s",
        "With full_guard: how long memory must have been free again. A GPU changes state at most"
        " once in 30 s, whatever this says.",
    ),
    Key(
        "measure_every",
        Text('duration, e.g. "5s"', duration(1, 60)),
        "5s",
        "How often the memory in use is measured. Placement ignores measurements older than 15 s;"
        " full_guard keeps its last decision if there was none for three times this.",
    ),
    Key(
        "settle",
        Text('duration, e.g. "2m"', duration(0, 3600)),
        "2m",
        "With full_guard: for how long after its start a pod counts with expected_memory, since"
        " models are loaded minutes after a pod starts.",
    ),
    Key(
        "expected_memory",
        _SIZE,
        "0",
        "The memory that one container is expected to use on each GPU of which it holds shares"
        " without a size. With full_guard it counts before it is used; a container that uses more"
        ' overuses it, as [limits] says. "0": nothing is expected of it.',
    ),
)

RULE = (
    Key(
        "match",
        _ENTRY,
        doc="The GPUs that the rule applies to: one entry as in [gpus] allow.",
        required=True,
        example="NVIDIA A100*",
    ),
    Key(
        "resource",
        _RESOURCE,
        doc="The extended resource of these GPUs; by default that of [sharing].",
        example="deepomatic.com/shared-a100",
    ),
    Key(
        "duplication_factor",
        _FACTOR,
        doc="How many shares each of these GPUs has; by default as in [sharing].",
        unit="shares per GPU",
        example=20,
    ),
    Key(
        "memory",
        _SIZE,
        doc="The memory of each of these GPUs, if NVML does not report it, as for GPUs that share"
        " the machine's memory (GB10, Jetson). What NVML reports wins.",
        example="100GiB",
    ),
    Key(
        "share_memory",
        _SHARE,
        doc="How much memory one share of these GPUs represents; by default as in [sharing], unless"
        ' the rule has duplication_factor. "0": shares are places. All shares of a resource have'
        " the same kind and size.",
        example="0",
    ),
)
