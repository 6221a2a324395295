"""The health of all GPUs of a node: applies each observation to the GPUs it concerns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import evolve, frozen

from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu, same_uuid
from sgpud.core.gpu.observations import GpuEvent, Sample
from sgpud.core.health.causes import GONE, Cause, of_event
from sgpud.core.health.machine import Health, HealthPhase, RecoverySign, step
from sgpud.core.planning.node import Node, Switching, Trust

KEPT = 64
"""How many GPUs that have gone are remembered: each new MIG layout has UUIDs of its own."""
_TROUBLED = (HealthPhase.SUSPECT, HealthPhase.UNHEALTHY)
_WELL = Health()


class UnknownGpuError(SgpudError):
    """A name that matches no GPU of this node, or more than one."""

    def __init__(self, name: str, known: Sequence[str], reason: str = "") -> None:
        """`known`: the UUIDs that it could have meant; `reason`: why the GPU is none of them."""
        super().__init__(name, tuple(known), reason)
        self.name, self.known, self.reason = name, tuple(known), reason

    def __str__(self) -> str:
        """What was asked for, and what there is."""
        if self.reason:
            return self.reason
        there = ", ".join(self.known) or "none yet"
        return f'no such GPU: "{self.name}"; write a UUID or an index; known: {there}'


@frozen
class Verdict:
    """What the health of a GPU means for its shares; both empty if it is healthy."""

    unhealthy: str = ""
    """Why no share of it is Healthy, held ones included."""
    withheld: str = ""
    """Why no more of its shares are to be chosen."""


def health_of(node: Node, uuid: str) -> Health:
    """The health of a GPU or of a MIG instance itself."""
    return node.healths.get(uuid, _WELL)


_SWITCHES = "`sgpud dra switch` changes the [kubelet] api of this node"
_SWITCHING = {
    Switching.ALL: Verdict(unhealthy=f"{_SWITCHES}; pods keep what they hold"),
    Switching.FREE: Verdict(withheld=_SWITCHES),
}
_TRUST = {
    Trust.EXPIRED: Verdict(
        unhealthy="known from the last run, but not confirmed by a probe in time"
    ),
    Trust.LAST_KNOWN: Verdict(withheld="known from the last run, not yet confirmed by a probe"),
}


def verdict(node: Node, gpu: Gpu) -> Verdict:
    """What to do with the shares of a GPU: the worst of its own health and its parent's."""
    own = health_of(node, gpu.uuid)
    parent = health_of(node, gpu.physical)
    if own.phase is HealthPhase.UNHEALTHY:
        return Verdict(unhealthy=_why(own))
    if parent.phase is HealthPhase.UNHEALTHY:
        return Verdict(unhealthy=f"its physical GPU is unhealthy: {_why(parent)}")
    general = _SWITCHING.get(node.switching) or _TRUST.get(node.trust)
    if general:
        return general
    for uuid in (gpu.uuid, gpu.physical):
        if health_of(node, uuid).cordoned:
            return Verdict(withheld=f"cordoned by the operator: `sgpud uncordon {uuid}` ends it")
    for health in (own, parent):
        if health.phase is not HealthPhase.HEALTHY:
            return Verdict(withheld=f"{health.phase.value}: {_why(health)}")
    return Verdict()


def worst(node: Node, gpu: Gpu) -> HealthPhase:
    """The phase of a GPU, or of its physical GPU where that is worse."""
    return max(health_of(node, gpu.uuid), health_of(node, gpu.physical), key=_badness).phase


def gpus_seen(node: Node, gpus: Sequence[Gpu], driver: str, now: float) -> Node:
    """The node after an inventory: these GPUs can be read. `now`: monotonic seconds.

    A GPU that is unhealthy or suspect and is not among them stays until it can be read again. Any
    other that is missing has gone, and is watched for a while when it comes back.
    """
    if node.driver_gone or (node.driver and driver != node.driver):
        node = _all_seen(node, RecoverySign.DRIVER, now)
    present = {gpu.uuid for gpu in gpus}
    missing = [gpu for gpu in node.gpus or () if gpu.uuid not in present]
    stays = [gpu for gpu in missing if _is_troubled(node, gpu)]
    node = _stepped(node, [gpu.uuid for gpu in missing if gpu not in stays], GONE, now)
    node = _stepped(node, _present(gpus), RecoverySign.BACK, now)
    known = tuple(sorted((*gpus, *stays), key=lambda gpu: gpu.order))
    missed = frozenset(gpu.uuid for gpu in stays)
    return evolve(
        node,
        gpus=known,
        missing=missed,
        driver=driver,
        driver_gone=False,
        probe_problem="",
        trust=Trust.CONFIRMED,
        healths=_kept(node.healths, _present(known)),
    )


def probe_failed(node: Node, problem: str, *, driver_gone: bool) -> Node:
    """The node when no GPU can be read: its GPUs are unknown then, not unhealthy.

    `driver_gone`: the kernel module is not loaded; loaded again, it has reset every GPU.
    """
    return evolve(node, probe_problem=problem, driver_gone=driver_gone or node.driver_gone)


def heard(node: Node, event: GpuEvent, now: float) -> Node:
    """The node after an event. One with a GPU instance concerns its MIG instances alone."""
    of_gpu = [gpu for gpu in node.gpus or () if event.uuid in (gpu.physical, gpu.uuid)]
    if not of_gpu:
        return node
    cause = of_event(event, of_gpu[0].compute, node.policy)
    if cause is None:
        return node
    return _stepped(node, _concerned(event, of_gpu), cause, now)


def sampled(node: Node, samples: Iterable[Sample], now: float) -> Node:
    """The node after some GPUs were read."""
    known = _present(node.gpus or ())
    for sample in samples:
        if sample.uuid not in known:
            continue
        served = sample.recovery == 0 and health_of(node, sample.uuid).recovery
        node = _stepped(node, [sample.uuid], sample, now)
        if served:
            node = _stepped(node, _instances(node, sample.uuid), RecoverySign.RESET, now)
    return node


def healed(node: Node, uuid: str, now: float) -> Node:
    """The node after the operator has declared a GPU, with its MIG instances, healthy."""
    return _stepped(node, [uuid, *_instances(node, uuid)], RecoverySign.WORD, now)


def cordoned(node: Node, uuid: str, *, on: bool) -> Node:
    """The node after the operator has cordoned or uncordoned a GPU."""
    health = evolve(health_of(node, uuid), cordoned=on)
    return evolve(node, healths={**node.healths, uuid: health})


def why_unchanged(node: Node, uuid: str, verb: str) -> str:
    """Why `cordon`, `uncordon` or `heal` of a GPU changes nothing, and what would."""
    health = health_of(node, uuid)
    if verb == "cordon":
        return "is already cordoned"
    parent = next((gpu.physical for gpu in node.gpus or () if gpu.uuid == uuid), uuid)
    of_parent = health_of(node, parent)
    if verb == "uncordon":
        why, other = "is not cordoned", of_parent.cordoned
    else:
        why = f"is {health.phase.value}: nothing to heal"
        other = of_parent.phase is not HealthPhase.HEALTHY
    return f"{why}; run `sgpud {verb} {parent}` for its physical GPU" if other else why


def booted(healths: Mapping[str, Health], node: Node, now: float) -> dict[str, Health]:
    """Healths from before a boot, as they are after it."""
    return {
        uuid: step(health, RecoverySign.BOOT, node.policy, now) for uuid, health in healths.items()
    }


def resumed(node: Node, healths: Mapping[str, Health]) -> Node:
    """The node with what another process knew: of two healths the worse, and its cordons."""
    found = dict(node.healths)
    for uuid, health in healths.items():
        own = found.get(uuid, _WELL)
        worse = own if _badness(own) > _badness(health) else health
        found[uuid] = evolve(worse, cordoned=health.cordoned)
    return evolve(node, healths=found)


def last_known(node: Node, gpus: Sequence[Gpu], driver: str, now: float) -> Node:
    """The node at its start, with the GPUs that were known last, until a probe has answered."""
    if node.gpus is not None or not gpus or not node.policy.trust_last_known:
        return evolve(node, driver=node.driver or driver)
    return evolve(
        node,
        gpus=tuple(gpus),
        driver=driver,
        trust=Trust.LAST_KNOWN,
        trusted_until=now + node.policy.trust_for,
    )


def find(node: Node, name: str) -> tuple[str, ...]:
    """The UUIDs that a person means: a GPU's own or its index, physical GPUs before instances."""
    known = _present(node.gpus or ())
    if name in known or name in node.healths:
        return (name,)
    meant = tuple(uuid for uuid in (*known, *node.healths) if same_uuid(name, uuid))
    return meant[:1] or tuple(
        dict.fromkeys(gpu.physical for gpu in node.gpus or () if str(gpu.index) == name)
    )


def _why(health: Health) -> str:
    return str(health.cause) if health.cause else health.phase.value


def _badness(health: Health) -> int:
    order = (HealthPhase.HEALTHY, HealthPhase.PROBATION, HealthPhase.SUSPECT, HealthPhase.UNHEALTHY)
    return order.index(health.phase)


def _present(gpus: Iterable[Gpu]) -> dict[str, None]:
    """The UUIDs of GPUs and of the physical GPUs that they are part of."""
    return dict.fromkeys(uuid for gpu in gpus for uuid in (gpu.physical, gpu.uuid))


def _instances(node: Node, uuid: str) -> list[str]:
    return [gpu.uuid for gpu in node.gpus or () if gpu.mig and gpu.physical == uuid]


def _concerned(event: GpuEvent, gpus: Sequence[Gpu]) -> Iterator[str]:
    instances = [
        gpu.uuid
        for gpu in gpus
        if gpu.mig and gpu.mig.gi == event.gi and event.ci in (None, gpu.mig.ci)
    ]
    # Drivers name instance 0 of a GPU without MIG, or one that is gone: it concerns the whole GPU.
    yield from instances if event.gi is not None and instances else (event.uuid,)


def _is_troubled(node: Node, gpu: Gpu) -> bool:
    own, parent = health_of(node, gpu.uuid), health_of(node, gpu.physical)
    return any(one.phase in _TROUBLED and one.cause != GONE for one in (own, parent))


def _all_seen(node: Node, seen: RecoverySign, now: float) -> Node:
    return _stepped(node, list(node.healths), seen, now)


def _stepped(
    node: Node, uuids: Iterable[str], what: Cause | Sample | RecoverySign, now: float
) -> Node:
    """The node with the healths of these GPUs stepped; the same one where nothing changes."""
    fresh = {}
    for uuid in uuids:
        before = health_of(node, uuid)
        after = step(before, what, node.policy, now)
        if after != before:
            fresh[uuid] = after
    return _left(evolve(node, healths={**node.healths, **fresh}), now) if fresh else node


def _left(node: Node, now: float) -> Node:
    """The node without the missing GPUs that nothing is wrong with any more: they have gone."""
    gone = [
        gpu for gpu in node.gpus or () if gpu.uuid in node.missing and not _is_troubled(node, gpu)
    ]
    if not gone:
        return node
    uuids = {gpu.uuid for gpu in gone}
    left = tuple(gpu for gpu in node.gpus or () if gpu.uuid not in uuids)
    return _stepped(evolve(node, gpus=left, missing=node.missing - uuids), uuids, GONE, now)


def _kept(healths: Mapping[str, Health], present: Iterable[str]) -> dict[str, Health]:
    """The healths without those of GPUs that have long gone and that nobody has cordoned."""
    here = set(present)
    gone = sorted(
        (uuid for uuid, one in healths.items() if uuid not in here and not one.cordoned),
        key=lambda uuid: healths[uuid].since,
    )
    dropped = set(gone[:-KEPT] if len(gone) > KEPT else ())
    return {uuid: one for uuid, one in healths.items() if uuid not in dropped}
