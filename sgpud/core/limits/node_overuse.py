"""The overuse of a node's GPUs, as their processes are sampled."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve

from sgpud.core.gpu.attribution import Attribution, Container, GpuUsage, gpu_use
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.gpu.observations import Usage
from sgpud.core.limits.overuse import GpuMemorySample, MemoryUse, allowance, pressed, step
from sgpud.core.limits.settings import OveruseAction
from sgpud.core.planning.full_guard import FRESH_FOR, MISSED
from sgpud.core.planning.holdings import Holder
from sgpud.core.planning.node import Node


def used(node: Node, usage: Usage) -> Node:
    """The node after its processes were sampled; the same where nothing changes."""
    sharing, checkpoint, found = node.sharing, node.checkpoint, {}
    if node.limits.overuse is not OveruseAction.OFF and sharing and checkpoint:
        samples = (_sample(node, gpu, usage) for gpu in map(sharing.sized, node.gpus or ()))
        # Most of the time no GPU is under pressure, and nobody's processes are looked at.
        counted = [one for one in samples if one and pressed(one, node.limits)]
        owners = Attribution(checkpoint if counted else None)
        spared = node.spared
        holders = _by_gpu(checkpoint.holders if counted else ())
        for seen in counted:
            use = gpu_use(seen.uuid, usage, owners)
            expected = sharing.guard_settings.expected
            uses = _uses(holders.get(seen.uuid, ()), use, seen.uuid, expected)
            uses = tuple(evolve(one, spared=spared.get(one.container[0], "")) for one in uses)
            before = node.overuse.get(seen.uuid)
            gap = MISSED * sharing.measure_every
            state = step(before, evolve(seen, uses=uses), node.limits, gap)
            if state.over:
                found[seen.uuid] = state
    return node if found == node.overuse else evolve(node, overuse=found)


def _sample(node: Node, gpu: Gpu, usage: Usage) -> GpuMemorySample | None:
    """What is known of a GPU's memory, without its containers; None: not even its size."""
    if not gpu.memory:
        return None
    sample, at = node.samples.get(gpu.uuid, (None, 0.0))
    fresh = sample is not None and sample.used is not None and usage.at < at + FRESH_FOR
    taken = gpu.reserved + sample.used if fresh and sample and sample.used is not None else None
    return GpuMemorySample(gpu.uuid, usage.at, gpu.memory, taken)


def _by_gpu(holders: Iterable[Holder]) -> dict[str, list[Holder]]:
    found: dict[str, list[Holder]] = {}
    for one in holders:
        for uuid in one.gpus:
            found.setdefault(uuid, []).append(one)
    return found


def _uses(
    holders: Iterable[Holder], use: GpuUsage, uuid: str, expected: int
) -> tuple[MemoryUse, ...]:
    """What each container that was granted memory of a GPU uses of it."""
    pods: dict[Container, str] = {}
    sizes: dict[Container, list[int]] = {}
    for one in holders:
        container = (one.pod, one.container)
        pods[container] = f"{one.namespace}/{one.name}" if one.name else ""
        size = one.count_on(uuid) * one.sizes.get(uuid, 0)
        sizes.setdefault(container, []).append(size)
    return tuple(
        MemoryUse(container, pods[container], granted, known.used if known else None)
        for container, each in sizes.items()
        if (granted := allowance(each, expected)) is not None
        for known in (use.of(container),)
    )
