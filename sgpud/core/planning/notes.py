"""Notes on a plan for the operator: what its numbers do not show."""

from __future__ import annotations

from collections.abc import Mapping

from sgpud.core.gpu.gpu import Gpu
from sgpud.core.planning.full_guard import MISSED
from sgpud.core.planning.holdings import Key
from sgpud.core.planning.node import Node
from sgpud.core.sharing.limits import too_many
from sgpud.core.sharing.rules import LARGE_STATUS, Partition, Sharing
from sgpud.core.sharing.share_id import memory_stem


def notes(
    node: Node, sharing: Sharing, present: Mapping[str, Gpu], partitions: Mapping[Key, Partition]
) -> tuple[str, ...]:
    """Every note, a sentence each."""
    found = [
        f'{key}: "{entry}" ' + _unmatched(entry, node)
        for key, entry in sharing.unmatched(present.values())
    ]
    if present and not partitions:
        found.append(
            f"no GPU is shared: [gpus] allow and deny leave out all there are ({len(present)})"
        )
    for (resource, uuid), partition in partitions.items():
        what = too_many(present[uuid], partition, sharing.reserve_memory)
        if partition.asked > partition.shares:
            found.append(
                f"{what} of {resource}, more than {LARGE_STATUS}: none but the held ones is "
                "listed. Raise share_memory, or set allow_large_status = true"
            )
        elif not partition.asked and present[uuid].memory is None:
            found.append(
                f"{uuid} ({present[uuid].product}) does not report its memory, which share_memory "
                f'needs: give it in a [[gpu]] rule, e.g. match = "{present[uuid].index}", '
                'memory = "100GiB"'
            )
        elif not partition.asked:
            found.append(f"{what} of {resource}: the GPU is smaller than one share")
    for uuid, watch in node.watches.items():
        if watch.stale:
            found.append(
                f"{uuid}: its memory was not measured for {MISSED} times measure_every: for "
                f"full_guard it stays {'full' if watch.full else 'not full'}"
            )
    for resource, uuid in node.listing.past_limit:
        partition = partitions.get((resource, uuid), Partition(0))
        memory = uuid == memory_stem(resource)
        key = "raise share_memory" if memory else "lower duplication_factor"
        whose, count = ("the node", "more") if memory else (uuid, str(partition.shares))
        found.append(
            f"{whose} gets no more shares of {resource}: {count} would take the list "
            f"message over the kubelet's 4 MiB; {key}, or use a [[gpu]] rule with a resource of "
            "its own"
        )
    return tuple(found)


def _unmatched(entry: str, node: Node) -> str:
    """Why an entry matches nothing: no such GPU, or one that cannot be read."""
    meant = next((gpu for gpu in node.unreadable if gpu.is_meant(entry)), None)
    if meant is None:
        return "matches no GPU of this node"
    return f"is {meant.named}, which cannot be shared: {meant.reason}"
