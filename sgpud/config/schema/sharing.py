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

_ENTRY = Text('a text in quotes such as "NVIDIA A100*"', gpu_entry)
_ENTRIES = ListOf(_ENTRY, 'a list of texts such as ["NVIDIA A100*", "0"]', 1000)
_RESOURCE = Text('a name in quotes such as "example.com/shared-gpu"', resource_name)
_FACTOR = Integer(1, 10_000)
_SMALLEST = 64 * 2**20
_SHARE = Text('a size in quotes such as "1GiB"', size(_SMALLEST))
_SIZE = Text('a size in quotes such as "2GiB"', size())
_AMOUNT_WORDS = 'a percentage or a size in quotes such as "5%" or "2GiB"'

GPUS = (
    Key(
        "allow",
        _ENTRIES,
        ["*"],
        "The GPUs that sgpud may share. An entry is one of these, all of which `sgpud gpus` shows"
        " for every GPU of the node:\n"
        '- a UUID ("GPU-..." or "MIG-..."); a physical GPU\'s stands for its MIG instances too\n'
        '- an index ("0")\n'
        '- a PCI address ("0000:3b:00.0")\n'
        '- a product name in which * and ? are wildcards and case does not count ("NVIDIA A100*")\n'
        "An entry that means no GPU of the node is logged as a warning.",
    ),
    Key(
        "deny",
        _ENTRIES,
        [],
        "GPUs that sgpud leaves alone, written as in allow. Deny wins over allow. When a GPU is"
        " denied while pods hold shares of it they keep them; its free shares are taken away.",
    ),
)

SHARING = (
    Key(
        "resource",
        _RESOURCE,
        DEFAULT_RESOURCE,
        "The extended resource that pods ask for under resources.limits, as domain/name. When it"
        " changes, pods that hold shares of the old name keep them, and the old name leaves the"
        " node after the last of them has ended.",
    ),
    Key(
        "duplication_factor",
        _FACTOR,
        DEFAULT_FACTOR,
        "How many shares each GPU has, unless share_memory is set: so many containers with one"
        " share each fit on it. A share is a place on the GPU, not an amount of its memory: nothing"
        " keeps one container from using all of it. When the number falls, shares that pods hold"
        " stay until those pods end.",
        unit="shares per GPU",
    ),
    Key(
        "share_memory",
        _SHARE,
        "0",
        "How much memory one share stands for. With a size each GPU has as many shares as fit into"
        " its memory, less what the driver keeps and reserve_memory, and duplication_factor does"
        ' not count: a pod that asks for 12 of "1GiB" gets 12 GiB of one GPU, and is told so in'
        " SGPUD_MEMORY_BYTES. Nothing keeps it from using more. When the size changes, pods keep"
        ' what they were given. "0": shares are places. At least 64MiB.',
    ),
    Key(
        "reserve_memory",
        _SIZE,
        "0",
        "Memory of each GPU that share_memory leaves out.",
    ),
    Key(
        "advertise",
        choice(Advertise),
        Advertise.LARGEST.value,
        "With share_memory, which free shares pods can get:\n"
        '- "largest": those of the one GPU with the most room. The node then shows exactly the'
        " largest request that fits, and what does not fit stays Pending. After a placement it"
        " takes up to 10 s until the next GPU's room shows\n"
        '- "all": those of every GPU. Each goes to the GPU with the least room that holds it, and'
        " what no single GPU can hold is refused on the node: its pod fails\n"
        "docs/placement.md shows both with numbers.",
    ),
    Key(
        "allow_large_status",
        Boolean(),
        default=False,
        doc=f"Whether a GPU may have more than {LARGE_STATUS} memory shares. Every id that a pod"
        " holds stands in its status, so that many of them make large objects in the cluster.",
    ),
    Key(
        "placement",
        choice(Placement),
        Placement.SPREAD.value,
        "Which GPU the next share comes from, by the fraction of its shares that is held, then by"
        " measured free memory. Memory shares always go where they leave the least room.\n"
        '- "spread": the GPU that is used least, so that pods disturb each other least\n'
        '- "packed": the GPU that is used most and has room, so that other GPUs stay empty',
    ),
    Key(
        "multiple",
        choice(Multiple),
        Multiple.DISTINCT.value,
        "What it means when one container asks for n shares; memory shares are always of the same"
        " GPU:\n"
        '- "distinct": n different GPUs; more than the node has never fit\n'
        '- "same": n shares of one GPU\n'
        '- "any": n shares of whichever GPUs\n'
        '- "refuse": a container may have one share only\n'
        "A container that cannot be given what this asks for is refused on the node: its pod"
        " fails with UnexpectedAdmissionError and a message that names this rule, and a"
        " controller makes the next pod at once.",
    ),
    Key(
        "full_guard",
        Boolean(),
        default=False,
        doc="Whether a GPU that is full, as measured, gets no more pods: its free shares are"
        " withheld until there is room again. Never for memory shares. It limits and does not"
        " prevent: pods can still be bound for up to 10 s, and those that are there go on.",
    ),
    Key(
        "memory_headroom",
        Text(_AMOUNT_WORDS, amount),
        "5%",
        "With full_guard: a GPU with less free memory than this is full.",
    ),
    Key(
        "memory_resume",
        Text(f"{_AMOUNT_WORDS}, or an empty text", amount_or_nothing),
        "",
        "With full_guard: a full GPU gets pods again when more than this has been free for"
        " resume_after. It must be more than memory_headroom. Empty: twice that.",
    ),
    Key(
        "resume_after",
        Text('a duration in quotes such as "30s"', duration(0, 3600)),
        "30s",
        "With full_guard: how long memory must have been free again. In 30 s there is at most one"
        " change for each GPU, whatever this says.",
    ),
    Key(
        "measure_every",
        Text('a duration in quotes such as "5s"', duration(1, 60)),
        "5s",
        "How often the memory in use is measured. Placement looks at it while it is younger than"
        " 15 s; full_guard keeps its last decision after three times this without a measurement.",
    ),
    Key(
        "settle",
        Text('a duration in quotes such as "2m"', duration(0, 3600)),
        "2m",
        "With full_guard: how long after a pod was given a share it counts with expected_memory,"
        " since a model loads minutes after its pod starts.",
    ),
    Key(
        "expected_memory",
        _SIZE,
        "0",
        "With full_guard: memory that one container is expected to use on each GPU of which it has"
        " shares.",
    ),
)

RULE = (
    Key(
        "match",
        _ENTRY,
        doc="The GPUs that the rule is for: one entry, written as in [gpus] allow.",
        required=True,
        example="NVIDIA A100*",
    ),
    Key(
        "resource",
        _RESOURCE,
        doc="The extended resource of these GPUs; left out, it is the one of [sharing].",
        example="deepomatic.com/shared-a100",
    ),
    Key(
        "duplication_factor",
        _FACTOR,
        doc="How many shares each of these GPUs has; left out, it is as in [sharing].",
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
        doc="How much memory one share of these GPUs stands for; left out, it is as in [sharing],"
        ' unless duplication_factor stands here. "0": shares are places. All shares of a resource'
        " are of one kind and size.",
        example="0",
    ),
)
