"""What a person should know of a plan beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from sgpud.core.gpu import Gpu
from sgpud.core.guard import MISSED
from sgpud.core.holding import Key
from sgpud.core.limits import too_many
from sgpud.core.node import Node
from sgpud.core.sharing import LARGE_STATUS, Cut, Sharing


def notes(
    node: Node, sharing: Sharing, present: Mapping[str, Gpu], cuts: Mapping[Key, Cut]
) -> tuple[str, ...]:
    """Every note, a sentence each."""
    found = [
        f'{key}: "{entry}" matches no GPU of this node'
        for key, entry in sharing.unmatched(present.values())
    ]
    if present and not cuts:
        found.append(
            f"no GPU is shared: [gpus] allow and deny leave out all there are ({len(present)})"
        )
    for (resource, uuid), cut in cuts.items():
        what = too_many(present[uuid], cut, sharing.reserve_memory)
        if cut.asked > cut.shares:
            found.append(
                f"{what} of {resource}, more than {LARGE_STATUS}: none but the held ones is "
                "listed. Raise share_memory, or set allow_large_status = true"
            )
        elif not cut.asked:
            found.append(f"{what} of {resource}: the GPU is smaller than one share")
    for uuid, watch in node.watches.items():
        if watch.stale:
            found.append(
                f"{uuid}: its memory was not measured for {MISSED} times measure_every: for "
                f"full_guard it stays {'full' if watch.full else 'not full'}"
            )
    for resource, uuid in node.listing.past_limit:
        cut = cuts.get((resource, uuid), Cut(0))
        key = "raise share_memory" if cut.size else "lower duplication_factor"
        found.append(
            f"{uuid} gets no more shares of {resource}: {cut.shares} would take the list message "
            f"over the kubelet's 4 MiB; {key} or use a [[gpu]] rule with a resource of its own"
        )
    return tuple(found)
