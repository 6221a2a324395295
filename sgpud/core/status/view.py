"""The view: what people and machines see of this node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from attrs import asdict, field, frozen

from sgpud import __version__
from sgpud.core.gpu.gpu import UnreadableGpu
from sgpud.core.gpu.observations import Usage
from sgpud.core.planning.holdings import Key
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.core.registration.events import RegistrationPhase, RegistrationState
from sgpud.core.status.gpus import (
    SHOWN,
    GpuStateView,
    HealthView,
    UsageView,
    gpu_states,
    healths,
    troubles,
    usage_view,
)
from sgpud.core.status.pools import HolderView, PoolView, holder_views, pool_view, unregistered
from sgpud.core.text import count_shares, several

SERVING, STANDBY = "serving", "standby"
FORMAT = 1
"""The version of the document's format: new keys do not change it; a removed key or a changed
meaning does."""
NOT_YET = UsageView(None, fresh=False, problem="processes are not known yet")


@frozen
class ConfigurationView:
    """Which configuration is in use."""

    file: str
    in_use: str
    """`file`, or `last good` if the file was invalid at start."""
    problems: tuple[str, ...] = ()
    """What is wrong with the current file, if it is not in use."""
    warnings: tuple[str, ...] = ()


@frozen
class CallTimes:
    """The duration of NVML calls of one kind, as the NVML process measured it."""

    call: str
    """`nvmlInit`, `nvmlDeviceGetCount`, `read` (all facts of a GPU), `sample` (its measurements),
    and those for events."""
    times: int
    seconds: float
    """All of them together."""


@frozen
class Counters:
    """Counters since the process started."""

    allocations: int = 0
    """Containers that were granted shares."""
    refusals: Mapping[str, int] = field(factory=dict)
    """By rule."""
    reloads: Mapping[str, int] = field(factory=dict)
    """By result: applied, unchanged, refused."""
    registrations: int = 0
    """Register calls that the kubelet accepted."""
    xids: tuple[tuple[str, int, int], ...] = ()
    """GPU, XID, and their number."""
    lists: Mapping[str, int] = field(factory=dict)
    """List messages sent to the kubelet, by resource."""
    probe_starts: int = 0
    """NVML processes that were started; more than 1: one was replaced."""
    calls: tuple[CallTimes, ...] = ()
    overuse: Mapping[str, int] = field(factory=dict)
    """How often a container has begun to overuse the memory of a GPU, by UUID."""


@frozen
class DraCalls:
    """Failed calls to the API server of one kind."""

    method: str
    """GET, POST, PUT, DELETE, list or watch."""
    status: int
    """Of HTTP; 0: there was no answer."""
    count: int


@frozen
class DraView:
    """The driver of Dynamic Resource Allocation, where it is used."""

    driver: str
    node: str
    """The name of this Node; empty until it is known."""
    slice: str
    """The name of the ResourceSlice; empty until it is published."""
    published: bool
    """Whether the API server has the slice as it should be."""
    problem: str
    """Why it does not, or empty."""
    missing_gates: tuple[str, ...]
    """Feature gates that the cluster lacks."""
    writes: int
    """Writes of the slice since the process began."""
    repairs: int
    """Those after someone else had changed or deleted it."""
    claims: int
    """Claims that are prepared now."""
    prepared: int
    """Claims that were prepared since the process began."""
    prepare_seconds: float
    """What that took, all of them together."""
    refusals: Mapping[str, int]
    """Claims that were not prepared, by reason."""
    errors: tuple[DraCalls, ...]


@frozen
class ClusterView:
    """The connection to the API server, where [kubelet] api_server uses it."""

    node: str
    """The name of this Node; empty until it is known."""
    pods_followed: bool
    """Whether names and ends of this node's pods come from there."""
    problems: tuple[str, ...] = ()
    """What does not work; sgpud works without it."""
    events: int = 0
    """Events written since the process began."""
    allocatable_writes: int = 0
    """Writes of the Node's allocatable shares ([kubelet] fast_status)."""
    evicted: int = 0
    """Pods that are being evicted now."""
    overuse_evictions: int = 0
    """Pods that were evicted for overuse of memory since the process began."""


@frozen
class InstanceView:
    """The state of this sgpud process."""

    serving: str
    """As in View."""
    directory: str
    """The plugin directory."""
    unready: tuple[str, ...] = ()
    """Why a standby could not take over."""
    dead: tuple[str, ...] = ()
    """Parts that have failed although the process runs."""
    unsaved: str = ""
    """As in View."""
    notes: tuple[str, ...] = ()
    """Notes for people, before those of the plan."""
    dra: tuple[DraView, ...] = ()
    """As in View."""
    cluster: tuple[ClusterView, ...] = ()
    """As in View."""


@frozen
class Timestamps:
    """When a view is made."""

    now: float
    """Seconds of the monotonic clock, which facts carry."""
    wall: float
    """Seconds since the epoch."""


@frozen
class NodeView:
    """One document for status, plan, metrics and the systemd status line."""

    version: str
    serving: str
    """`serving`, `standby` (another sgpud serves the directory), or `no directory`."""
    directory: str
    configuration: ConfigurationView
    driver: str
    probe: str
    """Why the GPUs cannot be read, or empty."""
    method: str
    """How GPUs are handed to containers, and why."""
    holders: str
    """Why the holders may be stale, or empty."""
    pools: tuple[PoolView, ...]
    notes: tuple[str, ...]
    counters: Counters
    unknown: tuple[str, ...] = ()
    """Facts without which nothing can be advertised yet."""
    healths: tuple[HealthView, ...] = ()
    """Of every GPU, shared or not, and of the physical GPUs of MIG instances."""
    format: int = FORMAT
    at: float = 0.0
    """When the view was made, in seconds since the epoch."""
    unready: tuple[str, ...] = ()
    """Why this sgpud is not ready; empty: it serves and the kubelet follows every list, or it is a
    standby that could take over."""
    dead: tuple[str, ...] = ()
    """Parts that have failed although the process runs: it must be restarted."""
    gpus: tuple[GpuStateView, ...] = ()
    """Every GPU, shared or not, in their order."""
    unreadable: tuple[UnreadableGpu, ...] = ()
    """GPUs that NVML counts and that cannot be shared, with the reason."""
    usage: UsageView = NOT_YET
    unsaved: str = ""
    """Why a restart would lose the latest state (cordons, healths, configuration), or empty."""
    dra: tuple[DraView, ...] = ()
    """The driver of Dynamic Resource Allocation; empty: sgpud is a device plugin."""
    cluster: tuple[ClusterView, ...] = ()
    """The connection to the API server; empty where it is not used."""


def view(
    node: Node,
    plan: Plan | None,
    registrations: Mapping[str, RegistrationState],
    configuration: ConfigurationView,
    counters: Counters,
    instance: InstanceView,
    moment: Timestamps,
    usage: Usage | None = None,
) -> NodeView:
    """The view of a node."""
    holders = holder_views(node)
    pools = tuple(
        pool_view(pool, registrations.get(pool.resource), node, holders)
        for pool in (plan.pools if plan else ())
    )
    chosen = plan.chosen if plan else None
    return NodeView(
        version=__version__,
        serving=instance.serving,
        directory=instance.directory,
        configuration=configuration,
        driver=node.driver,
        probe=node.probe_problem,
        method=f"{chosen.method.value}: {chosen.why}" if chosen else "",
        holders=(node.checkpoint.problem or node.checkpoint.doubt) if node.checkpoint else "",
        pools=pools,
        notes=(*instance.notes, *(plan.notes if plan else ())),
        counters=counters,
        unknown=tuple(_unknown(node)),
        healths=healths(node),
        at=moment.wall,
        unready=tuple(_unready(node, pools, instance)),
        dead=instance.dead,
        gpus=gpu_states(node, _by_gpu(holders), usage, moment.now, chosen),
        unreadable=tuple(gpu for gpu in node.unreadable if not _listed(gpu, node)),
        usage=usage_view(node, usage, moment.now),
        unsaved=instance.unsaved,
        dra=instance.dra,
        cluster=instance.cluster,
    )


def document(seen: NodeView) -> dict[str, object]:
    """The view as plain values, ready for JSON."""
    return asdict(seen)


def summary(seen: NodeView) -> str:
    """One line for systemd: what is shared, whether it is registered, and what is wrong."""
    parts = [f"failed: {part}" for part in seen.dead]
    if seen.serving != SERVING:
        parts.append(seen.serving)
    if seen.configuration.problems:
        parts.append(
            f"{seen.configuration.file} is not in use"
            f" ({several(len(seen.configuration.problems), 'problem')},"
            f" first: {seen.configuration.problems[0]})"
        )
    if seen.probe:
        parts.append(seen.probe)
    for pool in seen.pools:
        gpus = sum(1 for gpu in pool.gpus if gpu.shares)
        state = (
            "registered" if pool.registration == RegistrationPhase.LIVE.value else pool.registration
        )
        parts.append(
            f"{pool.resource}: {state}, {count_shares(pool.counts)} on {several(gpus, 'GPU')}"
            f" ({pool.counts['allocatable']} allocatable)"
        )
    parts += troubles(seen.healths)
    parts += [f"{gpu.named}: {gpu.reason}" for gpu in seen.unreadable[:SHOWN]]
    if seen.unsaved:
        parts.append(f"the state is not saved: {seen.unsaved}")
    if not seen.pools and not seen.probe:
        waits = f"waiting for {', '.join(seen.unknown)}" if seen.unknown else "no GPU is shared"
        parts.append(waits)
    return "; ".join(parts)


def _listed(gpu: UnreadableGpu, node: Node) -> bool:
    """Whether the GPU is known from before, and so has a health of its own."""
    return any(gpu.uuid in (one.uuid, one.physical) for one in node.gpus or () if gpu.uuid)


def _unready(node: Node, pools: Sequence[PoolView], instance: InstanceView) -> Iterator[str]:
    if instance.serving.startswith(STANDBY):
        yield from instance.unready
    elif instance.serving != SERVING:
        yield instance.serving
    else:
        why = f" ({node.probe_problem})" if node.probe_problem else ""
        yield from (f"waiting for {name}{why}" for name in _unknown(node))
        yield from unregistered(pools)


def _unknown(node: Node) -> list[str]:
    facts = {"the configuration": node.sharing, "GPUs": node.gpus, "holders": node.checkpoint}
    return [name for name, fact in facts.items() if fact is None]


def _by_gpu(holders: Mapping[Key, Sequence[HolderView]]) -> dict[str, list[HolderView]]:
    found: dict[str, list[HolderView]] = {}
    for (_, uuid), views in holders.items():
        found.setdefault(uuid, []).extend(views)
    return found
