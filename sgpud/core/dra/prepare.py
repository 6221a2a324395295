"""What NodePrepareResources answers: the last check before a claim's containers start.

The scheduler keeps the sums of what it allocated, but forgets a force-deleted pod's claim while its
container may still run, and takes a negative request for room. So the driver adds up once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from attrs import frozen

from sgpud.core.allocation.injection import (
    GrantedGpu,
    Injection,
    InjectionChoice,
    NodeHost,
    answer,
)
from sgpud.core.dra.claims import (
    MEMORY,
    SHARES,
    AllocatedClaim,
    AllocatedShare,
    PreparedClaim,
    consumption,
)
from sgpud.core.dra.slices import Device
from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.limits.caps import CapTerms, cap_variables, memory_cap
from sgpud.core.sharing.rules import InjectionMethod
from sgpud.core.units import format_size


class PrepareRefusedError(SgpudError):
    """A claim that is not prepared. The kubelet tries again, and the pod's events show the text."""

    def __init__(self, reason: str, text: str) -> None:
        """`reason`: one word, for the metric; `text`: for the pod's event."""
        super().__init__(reason, text)
        self.reason, self.text = reason, text

    def __str__(self) -> str:
        """The text."""
        return self.text


@frozen
class RequestInjection:
    """What the containers that use one request of a claim get."""

    request: str
    devices: tuple[str, ...]
    """The devices of the request, by name."""
    injection: Injection


def prepare(
    claim: AllocatedClaim,
    pool: str,
    published: Sequence[Device],
    unusable: Mapping[str, str],
    prepared: Iterable[PreparedClaim],
    now: float,
) -> PreparedClaim:
    """The claim as prepared, or PrepareRefusedError.

    `published`: the node's devices; `unusable`: by GPU UUID, why a container cannot get the GPU;
    `prepared`: every claim that is prepared already. A claim among these is answered as before.
    """
    others = []
    for each in prepared:
        if each.uid == claim.uid:
            if each.claim.shares != claim.shares:
                raise PrepareRefusedError(
                    "changed", f"claim {claim.namespace}/{claim.name}: its allocation has changed"
                )
            return each
        others.append(each)
    by_name = {device.name: device for device in published}
    if not claim.shares:
        raise PrepareRefusedError(
            "foreign", f"claim {claim.namespace}/{claim.name} has no device of this driver"
        )
    for share in claim.shares:
        _check_share(share, pool, by_name, unusable)
    made = PreparedClaim(
        claim, {share.device: by_name[share.device].uuid for share in claim.shares}, int(now)
    )
    _check_sums(made, by_name, others)
    return made


def _check_share(
    share: AllocatedShare,
    pool: str,
    by_name: Mapping[str, Device],
    unusable: Mapping[str, str],
) -> None:
    if share.pool != pool:
        raise PrepareRefusedError("pool", f"pool {share.pool} is not on this node ({pool})")
    device = by_name.get(share.device)
    if device is None:
        raise PrepareRefusedError("device", f"no GPU of this node is device {share.device}")
    for capacity, amount in share.consumed.items():
        if amount < 0:
            raise PrepareRefusedError(
                "negative", f"{share.device}: {capacity} {amount} is below 0; delete the claim"
            )
    if problem := unusable.get(device.uuid):
        raise PrepareRefusedError("unusable", f"{share.device}: {problem}")


def _check_sums(
    made: PreparedClaim, by_name: Mapping[str, Device], others: Sequence[PreparedClaim]
) -> None:
    before, after = consumption(others), consumption((*others, made))
    for device in {share.device for share in made.claim.shares}:
        found = by_name[device]
        for name, capacity in found.capacities.items():
            want = after.get(found.uuid, {}).get(name, 0)
            had = before.get(found.uuid, {}).get(name, 0)
            if want > capacity.value and want > had:
                shown = format_size if name == MEMORY else str
                raise PrepareRefusedError(
                    "capacity",
                    f"{device}: {shown(want - had)} of {name} requested, "
                    f"{shown(max(0, capacity.value - had))} of {shown(capacity.value)} left: a pod "
                    "that was force-deleted may still run",
                )


def injections(
    made: PreparedClaim,
    gpus: Mapping[str, Gpu],
    factors: Mapping[str, int],
    choice: InjectionChoice,
    host: NodeHost,
    cap_terms: CapTerms | None = None,
) -> tuple[RequestInjection, ...]:
    """What each request's containers get, in the order of the claim's requests.

    `gpus`: by UUID; `factors`: into how many places each GPU is shared. The variables are those of
    the device plugin; the amount of memory is what the scheduler consumed for the claim.
    A container's memory limit follows from that amount by `cap_terms`, None for none. It comes with
    the claim's own CDI device, so that a variable of the pod does not override it.
    """
    found = []
    for request in dict.fromkeys(share.request for share in made.claim.shares):
        mine: dict[str, list[AllocatedShare]] = {}
        for share in made.claim.shares:
            if share.request == request:
                mine.setdefault(share.device, []).append(share)
        granted = [
            GrantedGpu(
                gpus[made.uuids[device]],
                max(1, sum(max(0, share.consumed.get(SHARES, 1)) for share in shares)),
                factors.get(made.uuids[device], 1),
            )
            for device, shares in mine.items()
            if made.uuids[device] in gpus
        ]
        got = answer(choice, host, granted, prefix="SGPUD_", at=made.since)
        memory = [
            sum(max(0, share.consumed.get(MEMORY, 0)) for share in shares)
            for shares in mine.values()
        ]
        if any(memory):
            envs = {**got.envs, "SGPUD_MEMORY_BYTES": ",".join(map(str, memory))}
            amounts = zip((item.gpu for item in granted), memory, strict=False)
            cap = memory_cap(amounts, cap_terms) if cap_terms and len(granted) == len(mine) else 0
            if cap and choice.method is not InjectionMethod.DEVICE_NODES:
                envs.update(cap_variables(cap))
            got = Injection(envs, got.mounts, got.devices, got.cdi)
        found.append(RequestInjection(request, tuple(mine), got))
    return tuple(found)
