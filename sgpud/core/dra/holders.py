"""Prepared claims as holders, so that plan, status and metrics see them as they see shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil

from attrs import evolve

from sgpud.core.dra.claims import MEMORY, SHARES, AllocatedShare, ClaimPod, PreparedClaim
from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import CheckpointState, Holder, held, held_shares
from sgpud.core.planning.node import Node
from sgpud.core.sharing.rules import DEFAULT_RESOURCE, Partition


def claims_as_holders(
    claims: Iterable[PreparedClaim], node: Node, checkpoint: CheckpointState
) -> CheckpointState:
    """The checkpoint with the holders that prepared claims are: each request of a claim is one.

    The places of DRA have no numbers: they are numbered here in the order of the claims, so that
    each counts once. Two pods that share a claim share its numbers.
    """
    shared = {
        uuid: (resource, partition) for (resource, uuid), partition in node.partitions().items()
    }
    taken = {uuid: numbers for (_, uuid), numbers in held(checkpoint, ()).items()}
    found: list[Holder] = []
    for prepared in sorted(claims, key=lambda each: (each.since, each.uid)):
        parts: dict[tuple[str, str], list[tuple[str, Partition, int, int]]] = {}
        for uuid, share in _once(prepared):
            resource, partition = shared.get(uuid, (_fallback(node), Partition(0)))
            found_places = (uuid, partition, *_held(share, partition))
            parts.setdefault((share.request, resource), []).append(found_places)
        for (request, resource), places in parts.items():
            shares: dict[str, IntSet] = {}
            for uuid, _, count, _ in places:
                numbers = taken.get(uuid, IntSet()).unused(count)
                taken[uuid] = taken.get(uuid, IntSet()) | numbers
                shares[uuid] = shares.get(uuid, IntSet()) | numbers
            per_gpu = {uuid: part.shares for uuid, part, _, _ in places if part.shares}
            sizes = {uuid: size for uuid, _, _, size in places if size}
            # A claim of which no pod is known holds what it was given all the same.
            found += [
                Holder(
                    pod.uid,
                    request,
                    resource,
                    shares,
                    per_gpu,
                    sizes,
                    prepared.since,
                    prepared.claim.namespace,
                    pod.name,
                    claim=True,
                )
                for pod in prepared.claim.pods or (ClaimPod("", prepared.claim.name),)
            ]
    return evolve(checkpoint, holders=(*checkpoint.holders, *found), registered={})


def _fallback(node: Node) -> str:
    return node.sharing.default.resource if node.sharing else DEFAULT_RESOURCE


def _once(prepared: PreparedClaim) -> Iterator[tuple[str, AllocatedShare]]:
    """Each share of a claim with its GPU, once, however often the kubelet lists it."""
    seen: set[tuple[str, str, str]] = set()
    for share in prepared.claim.shares:
        uuid = prepared.uuids.get(share.device)
        key = (share.device, share.share_id, "" if share.share_id else share.request)
        if uuid is not None and key not in seen:
            seen.add(key)
            yield uuid, share


def _held(share: AllocatedShare, partition: Partition) -> tuple[int, int]:
    """How many places a share of a claim is, and how many bytes each stands for."""
    memory, places = max(0, share.consumed.get(MEMORY, 0)), max(1, share.consumed.get(SHARES, 1))
    if partition.size and memory:
        return -(-memory // partition.size), partition.size
    return places, memory // places


def live_plugin_holders(checkpoint: CheckpointState) -> CheckpointState:
    """The checkpoint with those containers only that still run.

    The kubelet names finished ones in its checkpoint until it writes the next, which without a
    device plugin it may never do. podresources does not list them; if it cannot be asked, all
    stay.
    """
    listed = checkpoint.listed
    if checkpoint.doubt or listed is None:
        return checkpoint
    return evolve(checkpoint, holders=tuple(one for one in checkpoint.holders if one.pod in listed))


def plugin_consumption(checkpoint: CheckpointState, node: Node) -> dict[str, dict[str, int]]:
    """What containers hold that the device plugin gave, by GPU UUID and capacity."""
    shared = {uuid: partition for (_, uuid), partition in node.partitions().items()}
    found: dict[str, dict[str, int]] = {}
    for (_, uuid), batches in held_shares(checkpoint, ()).items():
        partition = shared.get(uuid, Partition(0))
        sums = found.setdefault(uuid, {MEMORY: 0, SHARES: 0})
        for batch in batches:
            sums[MEMORY] += batch.count * batch.size
            places = batch.fraction(partition) * partition.shares
            sums[SHARES] += batch.count if batch.size else ceil(places)
    return found
