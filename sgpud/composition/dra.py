"""The DRA front, put together: what [kubelet] api = "dra" adds to the daemon.

Imported by app only where it is used: a device plugin needs neither an API server nor TLS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from sgpud.bridge import Reactor, Timer
from sgpud.cluster.claims import ClaimReader
from sgpud.cluster.client import ApiClient
from sgpud.cluster.credentials import Credentials
from sgpud.cluster.node_name import NodeName
from sgpud.cluster.slices import SlicePublisher
from sgpud.config.dra_settings import dra_settings
from sgpud.config.values import Config
from sgpud.core.cluster.events import ObjectReference
from sgpud.core.dra.claims import PreparedClaim
from sgpud.core.dra.evictions import pods_to_evict
from sgpud.core.dra.holders import (
    claims_as_holders,
    live_plugin_holders,
    plugin_consumption,
)
from sgpud.core.dra.slices import Device, devices, slice_problem
from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.health.machine import HealthPhase
from sgpud.core.health.node_health import health_of, worst
from sgpud.core.planning.holdings import CheckpointState, Holder
from sgpud.core.planning.node import Node
from sgpud.core.planning.plan import Plan
from sgpud.core.registration.events import RegistrationPhase, RegistrationState
from sgpud.core.status.view import DraCalls, DraView
from sgpud.files import boot_id
from sgpud.folder_watcher import FolderWatcher
from sgpud.kubelet.dra.cdi_folder import CdiFolder
from sgpud.kubelet.dra.checkpoint import (
    CHECKPOINT,
    DraCheckpointError,
    RecordedClaim,
    read_recorded,
)
from sgpud.kubelet.dra.front import DraFront, DraObserver
from sgpud.kubelet.dra.records import RecordFolder
from sgpud.kubelet.dra.servicer import (
    DeviceHealth,
    DraServicer,
    DraSnapshot,
    HealthReport,
)
from sgpud.kubelet.dra.store import ClaimStore

TOGETHER = 0.1
"""Seconds in which claims that come and go make one plan: it costs as much as preparing one."""


class ClaimsUnknownError(SgpudError):
    """The claims that an earlier run has prepared are not known yet."""


@frozen
class DaemonObserver:
    """What the driver tells the daemon."""

    learned: Callable[[CheckpointState], None]
    """The holders."""
    changed: Callable[[], None]
    """Something that people see has changed."""
    before_claim: Callable[[str, Sequence[Holder]], None]
    """Called in a worker, before the containers of a pod start, with the pod's UID and all holders;
    an SgpudError keeps them from starting."""
    refused: Callable[[str, str, str], None]
    """A claim was not prepared: its name, the reason, the problem."""


class Dra:
    """Everything that serves DRA on this node; a Front of `Serving`."""

    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        config: Config,
        environment: Mapping[str, str],
        state: Path,
        nonce: str,
        observer: DaemonObserver,
    ) -> None:
        """`state` is the state directory."""
        self._before_claim = observer.before_claim
        changed = observer.changed
        self._reactor = reactor
        self._config = config
        self._learned = observer.learned
        self._told = changed
        dra = config.dra
        self._credentials = Credentials(dra.kubeconfig, environment, time.time)
        self._reader = ClaimReader(self._credentials, dra.driver, time.monotonic)
        cdi = CdiFolder(Path(dra.cdi_dir), dra.driver)
        self._soon = Timer(reactor)
        self._store = ClaimStore(
            RecordFolder(state / "claims"),
            cdi,
            boot_id(),
            lambda: reactor.callFromThread(self._claims_came),
        )
        self._counts = DraCounts(reactor, self._registered, observer.refused)
        self._servicer = DraServicer(
            dra.driver, self._store, self._reader, self._counts, time.time, self._before_start
        )
        self._front = DraFront(
            reactor,
            Path(config.kubelet.plugin_directory).parent,
            nonce,
            dra.driver,
            self._servicer,
            self._store,
            partial(FolderWatcher, reactor),
            DraObserver(self._loaded, changed, self._compare),
        )
        self._api = ApiClient(reactor, self._credentials)
        self._slices = SlicePublisher(reactor, self._api, changed)
        self._named = NodeName(reactor, self._credentials, environment, self._known_as, changed)
        self._node: Node | None = None
        self._checkpoint = CheckpointState()
        self._plan: Plan | None = None
        self._is_loaded = False
        self._recorded: Mapping[str, RecordedClaim] = {}
        self._problem = ""
        self._warned = False
        """Whether it was said that the device plugin's holders are there."""

    # What Serving asks of a front. ---------------------------------------------------------------

    @property
    def registrations(self) -> Mapping[str, RegistrationState]:
        """Where each pool stands: live when the kubelet and the scheduler know of it."""
        found = self._front.registrations
        problem = self._trouble
        if self._front.state.phase is not RegistrationPhase.LIVE:
            return found
        if problem or not self._slices.status.published:
            state = evolve(self._front.state, phase=RegistrationPhase.WAITING, problem=problem)
            return dict.fromkeys(found, state)
        return found

    @property
    def _trouble(self) -> str:
        return self._problem or self._named.problem or self._slices.status.problem

    @property
    def registered(self) -> int:
        """How often the kubelet has registered the driver."""
        return self._front.registered

    @property
    def view(self) -> DraView:
        """What people see of it."""
        status, counts = self._slices.status, self._counts
        return DraView(
            driver=self._config.dra.driver,
            node=self._named.name,
            slice=status.name,
            published=status.published and not self._problem,
            problem=self._trouble or self._front.state.problem,
            missing_gates=status.missing,
            writes=status.writes,
            repairs=status.repairs,
            claims=len(self._store.claims),
            prepared=counts.prepared_count,
            prepare_seconds=counts.prepared_seconds,
            refusals=dict(counts.refusals),
            errors=tuple(
                DraCalls(method, code, count)
                for (method, code), count in sorted(status.errors.items())
            ),
        )

    def update(self, resources: Iterable[str]) -> None:
        """The pools there are now."""
        self._front.update(resources)

    def clear_stale(self) -> list[str]:
        """Remove the sockets of earlier runs."""
        return self._front.clear_stale()

    def activate(self) -> None:
        """Serve, also after `deactivate`: a plugin directory may be replaced."""
        self._reader.open()
        self._slices = SlicePublisher(self._reactor, self._api, self._told)
        self._slices.reorder_every = self._config.dra.reorder_every
        self._front.publishes_with(self._slices)
        self._front.activate()

    def deactivate(self) -> Deferred[None]:
        """End everything; the slice stays."""
        self._soon.cancel()
        self._named.stop()
        self._slices.stop()
        self._api.reset()
        self._reader.close()
        return self._front.deactivate()

    def kubelet_seen(self) -> None:
        """There is a new kubelet.sock."""
        self._front.kubelet_seen()

    def kubelet_gone(self) -> None:
        """There is no kubelet.sock."""
        self._front.kubelet_gone()

    def checkpoint_changed(self) -> None:
        """The checkpoint of the device plugin says nothing of claims."""

    def plugin_seen(self) -> None:
        """A device plugin's socket appeared: it is no rival of a DRA driver."""

    # What app tells. -----------------------------------------------------------------------------

    @property
    def dead(self) -> bool:
        """Whether a part of it has failed."""
        return self._slices.dead

    def plugin_holders_read(self, checkpoint: CheckpointState) -> None:
        """What the kubelet's checkpoint says: containers that a device plugin gave shares to."""
        is_known = bool(checkpoint.doubt) or checkpoint.listed is not None
        checkpoint = live_plugin_holders(checkpoint)
        if is_known and checkpoint.holders and not self._warned:
            self._warned = True
            self._log.warn(
                "{count} containers hold shares that the device plugin granted. What they hold is"
                " offered through DRA only after they end",
                count=len(checkpoint.holders),
            )
        self._checkpoint = checkpoint
        self._claims_changed()

    def claimed(self) -> Sequence[Holder]:
        """What pods hold through claims, now; in any thread. SgpudError: it is not known yet."""
        if self._node is None or not self._is_loaded:
            raise ClaimsUnknownError("the claims that were prepared have not been read yet")
        known = claims_as_holders(self._store.claims, self._node, self._checkpoint)
        return [one for one in known.holders if one.claim]

    def evictions(self, node: Node) -> Mapping[ObjectReference, str]:
        """The pods that `[dra] evict` has evicted and no taint evicts, each with its reason."""
        if not dra_settings(self._config).evict_unhealthy:
            return {}
        return pods_to_evict(self._store.claims, node)

    def configured(self, config: Config) -> None:
        """The configuration in use; a change of what needs a restart is not looked at."""
        self._config = config
        self._slices.reorder_every = config.dra.reorder_every
        if self._node is not None:
            self.reconciled(self._node, self._plan)

    def reconciled(self, node: Node, plan: Plan | None) -> None:
        """The node and its plan: publish them, and answer from them."""
        self._node, self._plan = node, plan
        if plan is None or plan.chosen is None or not self._named.name or not self._is_loaded:
            return
        claims = self._store.claims
        others = plugin_consumption(self._checkpoint, node)
        found = devices(node, dra_settings(self._config), claims, others)
        self._problem = slice_problem(found)
        self._servicer.publish(
            DraSnapshot(
                self._named.name,
                found,
                plan.chosen,
                plan.host,
                {gpu.uuid: gpu for gpu in node.gpus or ()},
                {uuid: part.shares for (_, uuid), part in node.partitions().items()},
                plan.cap_terms,
            )
        )
        self._front.reports(self._health(node, found))
        if not self._problem:
            self._slices.publish(found)

    def _health(self, node: Node, found: tuple[Device, ...]) -> HealthReport:
        gpus = {gpu.uuid: gpu for gpu in node.gpus or ()}
        reports = tuple(_device_health(node, device, gpus.get(device.uuid)) for device in found)
        return HealthReport(self._named.name, reports, int(time.time()))

    # What the parts tell. ------------------------------------------------------------------------

    def _loaded(self) -> None:
        self._is_loaded = True
        self._claims_changed()
        self._named.find(self._config.dra.node_name)

    def _claims_came(self) -> None:
        """Claims were prepared or unprepared; the plan follows soon, with what comes meanwhile."""
        self._front.claims_changed()
        self._soon.at_most(TOGETHER, self._claims_changed)

    def _claims_changed(self) -> None:
        if self._is_loaded:
            node = self._node or Node()
            self._learned(claims_as_holders(self._store.claims, node, self._checkpoint))

    def _before_start(self, claim: PreparedClaim) -> None:
        """Have the memory of a claim's pods limited; in a worker."""
        if self._node is not None:
            known = claims_as_holders(self._store.claims, self._node, self._checkpoint)
            for pod in claim.claim.pods:
                self._before_claim(pod.uid, known.holders)

    def _compare(self) -> None:
        """Compare the claims with the kubelet's record, where that has changed; in a thread."""
        path = Path(self._config.kubelet.plugin_directory).parent / CHECKPOINT
        try:
            recorded = read_recorded(path, self._config.dra.driver)
        except DraCheckpointError as problem:
            # Before the first claim there is none.
            self._log.debug("{problem}", problem=str(problem))
            return
        if recorded != self._recorded:
            self._servicer.compare(recorded)
            self._recorded = recorded

    def _registered(self, problem: str) -> None:
        self._front.notified(problem)

    def _known_as(self, name: str) -> None:
        self._slices.start(self._config.dra.driver, name)
        if self._node is not None:
            self.reconciled(self._node, self._plan)


def _device_health(node: Node, device: Device, gpu: Gpu | None) -> DeviceHealth:
    if gpu is None:
        return DeviceHealth(device.name, healthy=False, message="the GPU is gone from this node")
    if node.probe_problem:
        return DeviceHealth(device.name, healthy=None, message=node.probe_problem)
    phase = worst(node, gpu)
    causes = (health_of(node, uuid).cause for uuid in (gpu.uuid, gpu.physical))
    cause = next((str(cause) for cause in causes if cause), "")
    message = f"{phase.value}: {cause}" if cause else ""
    return DeviceHealth(device.name, phase is not HealthPhase.UNHEALTHY, message)


class DraCounts:
    """Counts what the workers tell, on the reactor."""

    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        registered: Callable[[str], None],
        refused: Callable[[str, str, str], None],
    ) -> None:
        """`registered` is told what the kubelet says of the registration."""
        self._reactor = reactor
        self._registered = registered
        self._refused = refused
        self.prepared_count = 0
        self.prepared_seconds = 0.0
        self.refusals: dict[str, int] = {}

    def registered(self, problem: str) -> None:
        """From a worker: the kubelet has registered the driver, or not."""
        self._reactor.callFromThread(self._registered, problem)

    def prepared(self, seconds: float) -> None:
        """From a worker: a claim was prepared."""
        self._reactor.callFromThread(self._count, seconds)

    def refused(self, claim: str, reason: str, problem: str) -> None:
        """From a worker: a claim was not prepared."""
        self._reactor.callFromThread(self._refuse, claim, reason, problem)

    def _count(self, seconds: float) -> None:
        self.prepared_count += 1
        self.prepared_seconds += seconds

    def _refuse(self, claim: str, reason: str, problem: str) -> None:
        self.refusals[reason] = self.refusals.get(reason, 0) + 1
        self._refused(claim, reason, problem)
        self._log.warn(
            "Not preparing claim {claim}: {problem}. Its pod waits; the kubelet tries again",
            claim=claim,
            problem=problem,
        )
