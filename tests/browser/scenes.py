"""Nodes to look at: what the page gets of each, made of the classes that the daemon uses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from sgpud.core.allocation.decisions import Decision, DecisionKind, GpuCount, GpuSnapshot
from sgpud.core.gpu.attribution import ProcessView
from sgpud.core.gpu.gpu import UnreadableGpu
from sgpud.core.status.gpus import ContainerView, GpuStateView, UsageView
from sgpud.core.status.history import HistoryView, LastHour
from sgpud.core.status.pools import HolderView, PoolGpuView, PoolView
from sgpud.core.status.view import ConfigurationView, Counters, DraView, NodeView

GIB = 2**30
NOW = 1_790_000_000.0
RESOURCE = "deepomatic.com/shared-gpu"
TEAMS = ("vision", "speech", "search", "ops")
WORK = ("train", "chat", "embed", "notebook", "rank", "render")
HELD_BACK = "0 of 40 GiB are free"


@frozen
class Scene:
    """One node."""

    view: NodeView
    history: HistoryView
    decisions: tuple[Decision, ...]


def container(
    number: int, granted: float | None, used: float | None, shares: int = 1
) -> ContainerView:
    """Sizes in GiB; a container of places has no granted size."""
    over = None if used is None or granted is None else max(0, int((used - granted) * GIB))
    return ContainerView(
        namespace=TEAMS[number % len(TEAMS)],
        pod=f"{WORK[number % len(WORK)]}-{number}",
        uid=f"0a1b2c3d-0000-4000-8000-{number:012d}",
        container="main",
        shares=shares,
        granted=None if granted is None else int(granted * GIB),
        since=NOW - 40 * (number + 1) ** 2,
        processes=None if used is None else 1,
        used=None if used is None else int(used * GIB),
        over=over,
        utilisation=None if used is None else (7 * number + 11) % 40,
        over_for=95.0 if over else None,
    )


def gpu(
    index: int, product: str, memory: int, containers: Sequence[ContainerView] = ()
) -> GpuStateView:
    """A healthy one, on which some memory is not of its containers."""
    known = [one.used for one in containers if one.used is not None]
    return GpuStateView(
        uuid=f"GPU-{index:08d}-0000-4000-8000-00000000000a",
        physical=f"GPU-{index:08d}-0000-4000-8000-00000000000a",
        index=index,
        mig="",
        product=product,
        pci=f"0000:{index + 16:02x}:00.0",
        numa=index // 4,
        memory=memory * GIB,
        reserved=GIB // 2,
        used=sum(known) + GIB // 4,
        utilisation=min(100, sum(one.utilisation or 0 for one in containers)),
        measured_ago=1.2,
        fresh=True,
        uncorrected_ecc=0,
        row_remap_pending=False,
        row_remap_failed=False,
        health="healthy",
        cause="",
        reason="",
        advice="",
        cordoned=False,
        missing=False,
        containers=tuple(containers),
        processes=(),
        use_problem="",
        enforcement="watch",
        enforcement_reason="driver 580.95.05 cannot limit memory",
        enforcement_remedy="install driver 615 or later",
    )


def listing(seen: GpuStateView, shares: int) -> PoolGpuView:
    """What the pool lists of a GPU."""
    held = sum(one.shares for one in seen.containers)
    unhealthy = seen.health == "unhealthy" or seen.missing
    why = seen.reason or ("cordoned" if seen.cordoned else "" if held < shares else HELD_BACK)
    left = max(0, shares - held)
    return PoolGpuView(
        uuid=seen.uuid,
        product=seen.product,
        index=seen.index,
        memory=seen.memory,
        shares=max(shares, held),
        held=held,
        free=0 if why or unhealthy else left,
        withheld=left if why and not unhealthy else 0,
        unhealthy=left if unhealthy else 0,
        draining=0,
        surplus=max(0, held - shares),
        allocatable=0 if unhealthy else held if why else shares,
        availability="unhealthy" if unhealthy else "withheld" if why else "available",
        reason=why,
        holders=tuple(
            HolderView(
                one.namespace,
                one.pod,
                one.uid,
                one.container,
                one.shares,
                one.granted or 0,
                one.since,
            )
            for one in seen.containers
        ),
    )


def past(gpus: Sequence[GpuStateView], steps: int = 120) -> HistoryView:
    """Waves; with a gap for a GPU that is not healthy."""
    found = {}
    for number, seen in enumerate(gpus):
        waves = [0.5 + 0.5 * math.sin(step / (9 + number) + number) for step in range(steps)]
        used = [int((seen.used or 0) * (0.55 + 0.45 * wave)) for wave in waves]
        busy = [int((seen.utilisation or 0) * wave) for wave in waves]
        gap = range(0) if seen.health == "healthy" else range(60, 72)
        found[seen.uuid] = LastHour(
            tuple(None if step in gap else value for step, value in enumerate(used)),
            tuple(None if step in gap or seen.mig else value for step, value in enumerate(busy)),
        )
    return HistoryView(30.0, 120, found)


def asked(gpus: Sequence[GpuStateView]) -> tuple[Decision, ...]:
    """An allocation for each container, and a refusal."""
    seen = tuple(GpuSnapshot(one.uuid, "available", "", 40, 0, 0.0, None) for one in gpus)
    found = [
        Decision(
            one.since,
            DecisionKind.ALLOCATION,
            RESOURCE,
            one.shares,
            (GpuCount(each.uuid, one.shares, 0),),
            "best-fit",
            "memory shares are of one GPU: the GPU with the least room in which they fit",
            seen,
        )
        for each in gpus
        for one in each.containers
    ]
    refused = Decision(
        NOW - 8,
        DecisionKind.REFUSAL,
        RESOURCE,
        12,
        (),
        "full",
        "12 memory shares (12 GiB) fit on no GPU: the most that one has is 4 GiB",
        seen,
    )
    return tuple(sorted([*found, refused] if gpus else [], key=lambda one: one.at))


def scene(gpus: Sequence[GpuStateView], shares: int = 40, **changes: Any) -> Scene:
    """A node that serves."""
    pool = PoolView(
        RESOURCE, "live", "", 3, dropped=False, gpus=tuple(listing(one, shares) for one in gpus)
    )
    view = NodeView(
        version="0.1.0",
        serving="serving",
        directory="/var/lib/kubelet/device-plugins",
        configuration=ConfigurationView("/etc/sgpud.toml", "file"),
        driver="580.95.05",
        probe="",
        method="cdi: a CDI spec on the node names every GPU",
        holders="",
        pools=(pool,),
        notes=(),
        counters=Counters(),
        at=NOW,
        gpus=tuple(gpus),
        usage=UsageView(1.2, fresh=True, problem=""),
    )
    return Scene(evolve(view, **changes), past(gpus), asked(gpus))


def two() -> tuple[GpuStateView, GpuStateView]:
    """A usual small node: one of the containers uses too much."""
    big = gpu(0, "NVIDIA A100-SXM4-40GB", 40, [container(0, 18, 17.2, 18), container(4, 6, 4.1, 6)])
    pods = [container(1, 8, 7.4, 8), container(2, 6, 7.5, 6), container(3, 3, 2.2, 3)]
    return big, gpu(1, "NVIDIA L4", 24, pods)


def eight() -> list[GpuStateView]:
    """Eight GPUs with 30 holders each, some of them ill."""
    found = [
        gpu(
            index,
            "NVIDIA H100 80GB HBM3",
            80,
            [container(30 * index + n, 2, 0.4 + (n * 7 + index) % 16 / 10, 2) for n in range(30)],
        )
        for index in range(8)
    ]
    xid = "XID 79: the GPU has fallen off the bus"
    found[5] = evolve(
        found[5], health="unhealthy", cause="XID 79", reason=xid, advice="reboot the node"
    )
    found[2] = evolve(found[2], cordoned=True)
    found[6] = evolve(found[6], containers=(*found[6].containers[:-1], container(209, 2, 5.5, 2)))
    return found


def mig() -> list[GpuStateView]:
    """Instances of one GPU, of which no utilisation is known, and a whole GPU."""
    parts = [
        evolve(
            gpu(0, "NVIDIA A100-SXM4-40GB MIG 1g.5gb", 5, [container(index, 2, 1.5, 2)]),
            uuid=f"MIG-{index:08d}-0000-4000-8000-00000000000a",
            mig=f"{index + 7}/0",
            utilisation=None,
        )
        for index in range(3)
    ]
    return [*parts, gpu(1, "NVIDIA A100-SXM4-40GB", 40, [container(9, 4, 3.0, 4)])]


def sick() -> Scene:
    """Nothing is right: unhealthy, suspect, missing, unreadable GPUs, and problems of the node."""
    first, second = two()
    xid = "XID 48: double-bit ECC error"
    gpus = [
        evolve(
            first,
            health="unhealthy",
            cause="XID 48",
            reason=xid,
            advice="reset it: nvidia-smi --gpu-reset -i 0",
        ),
        evolve(
            second,
            health="suspect",
            reason="2 probes failed: Unknown Error",
            measured_ago=190.0,
            fresh=False,
        ),
        evolve(
            gpu(2, "NVIDIA L4", 24), missing=True, health="unknown", used=None, utilisation=None
        ),
    ]
    configuration = ConfigurationView(
        "/etc/sgpud.toml",
        "last good",
        ("/etc/sgpud.toml:7:9: sharing.multipel: no such key; did you mean multiple?",),
    )
    return scene(
        gpus,
        configuration=configuration,
        dead=("holder tracker",),
        unready=("the kubelet does not follow deepomatic.com/shared-gpu: refused",),
        unreadable=(
            UnreadableGpu(3, "MIG mode is enabled and there is no instance", "", "0000:41:00.0"),
        ),
        unsaved="No space left on device",
    )


def over() -> Scene:
    """35 of 24 GiB: granted by an older configuration, with a process that holds no share."""
    pods = [container(number, 7, 3.5 if number else 9.0, 7) for number in range(5)]
    stranger = ProcessView(
        4711, "miner", 2 * GIB, None, "shareless", "dev", "sly", "u", "main", "", "", ""
    )
    crowded = evolve(gpu(0, "NVIDIA L4", 24, pods), processes=(stranger,), used=23 * GIB)
    return scene([crowded, gpu(1, "NVIDIA L4", 24, [container(7, None, None, 3)])], 24)


def full() -> Scene:
    """No share is left, and what they use is unknown."""
    pods = [container(number, 4, None, 4) for number in range(10)]
    problem = "sgpud does not see the processes of the node: hostPID is missing"
    found = gpu(0, "NVIDIA A100-SXM4-40GB", 40, pods)
    return scene([evolve(found, used=38 * GIB, use_problem=problem)])


def dra() -> Scene:
    """A driver of Dynamic Resource Allocation."""
    driver = DraView(
        driver="gpu.deepomatic.com",
        node="gpu-node-7",
        slice="gpu-node-7-gpu.deepomatic.com-x7k2p",
        published=False,
        problem="403 Forbidden: may not update resourceslices",
        missing_gates=("DRAConsumableCapacity",),
        writes=4,
        repairs=0,
        claims=3,
        prepared=9,
        prepare_seconds=1.2,
        refusals={"gone": 2},
        errors=(),
    )
    return scene(two(), dra=(driver,))


SCENES: Mapping[str, Scene] = {
    "none": scene([]),
    "two": scene(two()),
    "eight": scene(eight(), 80),
    "mig": scene(mig()),
    "sick": sick(),
    "over": over(),
    "full": full(),
    "dra": dra(),
}
