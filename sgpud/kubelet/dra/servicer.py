"""What the kubelet asks of a DRA driver, as gRPC's workers answer it: bytes in, bytes out.

Preparing a claim is not on the path of pod admission and has a deadline of 45 s, so a worker may
read the API server and write files. No worker waits for the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Condition, Lock
from time import monotonic
from typing import Any, Protocol

import grpc
from attrs import field, frozen
from twisted.logger import Logger

from sgpud.bridge import Subscription, Watchable
from sgpud.core.allocation.injection import InjectionChoice, NodeHost
from sgpud.core.dra.claims import AllocatedClaim, PreparedClaim
from sgpud.core.dra.injecting import InjectedClaim, injected
from sgpud.core.dra.prepare import PrepareRefusedError, injections, prepare
from sgpud.core.dra.slices import Device
from sgpud.core.errors import SgpudError
from sgpud.core.gpu.gpu import Gpu
from sgpud.core.limits.caps import CapTerms
from sgpud.kubelet.api import dra_pb2 as api
from sgpud.kubelet.api import drahealth_pb2 as health_api
from sgpud.kubelet.api import pluginregistration_pb2 as registration_api
from sgpud.kubelet.deviceplugin.messages import decoded
from sgpud.kubelet.dra.checkpoint import RecordedClaim
from sgpud.kubelet.dra.store import UID, ClaimStore
from sgpud.kubelet.incoming import IncomingCalls

PLUGIN, HEALTH, OLD_HEALTH = (
    "v1.DRAPlugin",
    "v1.DRAResourceHealth",
    "v1alpha1.DRAResourceHealth",
)
SERVICE = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
"""What PLUGIN is called on the wire."""
REGISTRATION = "pluginregistration.Registration"
READ_WITHIN = 12.0
"""Seconds for reading one claim, with every try: an error costs the pod as much."""
ANSWER_WITHIN = 30.0
"""Seconds for all claims of a call: the kubelet gives up after 45."""
FACTS_WITHIN = 10.0
"""Seconds to wait for the GPUs to be known."""
RESTORE_WITHIN = 5.0
"""Seconds for reading a claim that was lost here."""
LEFTOVER_AFTER = 60
"""Seconds after which the kubelet has a prepared claim on record."""
HEALTH_TIMEOUT = 30
"""Seconds after which the kubelet takes a device for unknown of which it hears nothing."""
CLAIMS = 1024
"""Claims in one call, at most: the kubelet sends those of one pod."""
STATUS_FIELDS = 8
"""Fields of the status of a registration, at most: it has two."""
STREAMS = 4
"""Health streams at a time; one more is refused. The kubelet opens one for each version, and who
comes after it must neither end these nor use up the workers."""


@frozen
class DraSnapshot:
    """What the workers answer from."""

    pool: str
    """The node's name."""
    devices: tuple[Device, ...]
    choice: InjectionChoice
    host: NodeHost
    gpus: Mapping[str, Gpu] = field(factory=dict)
    """By UUID."""
    factors: Mapping[str, int] = field(factory=dict)
    """Into how many places each GPU is shared, by UUID."""
    cap_terms: CapTerms | None = None
    """As in Plan."""


@frozen
class DeviceHealth:
    """What the kubelet shows of one device in the status of pods."""

    device: str
    healthy: bool | None
    """None: it is not known."""
    message: str = ""


@frozen
class HealthReport:
    """The health of every device of the pool."""

    pool: str
    devices: tuple[DeviceHealth, ...] = ()
    at: int = 0
    """Seconds since the epoch."""


class Claims(Protocol):
    """Reads claims from the API server."""

    def read(self, namespace: str, name: str, uid: str, within: float) -> AllocatedClaim:
        """The claim; an SgpudError that says why not."""


class CallsObserved(Protocol):
    """What the workers tell, from their own threads."""

    def registered(self, problem: str) -> None:
        """The kubelet has registered the driver, or says why not."""

    def prepared(self, seconds: float) -> None:
        """A claim was prepared, in so many seconds."""

    def refused(self, claim: str, reason: str, problem: str) -> None:
        """A claim was not prepared: its pod waits and the kubelet tries again."""


class DraServicer:
    """Answers the kubelet."""

    _log = Logger()

    def __init__(
        self,
        driver: str,
        store: ClaimStore,
        claims: Claims,
        observer: CallsObserved,
        wall: Callable[[], float],
        before_start: Callable[[PreparedClaim], None],
    ) -> None:
        """`wall` gives seconds since the epoch.

        `before_start` is called for each claim that was prepared. It may block; an SgpudError keeps
        the pod from starting, and the kubelet asks again.
        """
        self._before_start = before_start
        self._driver = driver
        self._store = store
        self._claims = claims
        self._observer = observer
        self._wall = wall
        self._facts = Condition()
        self._snapshot: DraSnapshot | None = None
        self.health: Watchable[HealthReport, None] = Watchable(HealthReport(""))
        """What health streams send; publish it again as a heartbeat."""
        self._calls = IncomingCalls()
        self._lock = Lock()
        self._streams: list[Subscription[HealthReport]] = []
        self._closed = False

    def publish(self, snapshot: DraSnapshot) -> None:
        """Answer from this from now on."""
        with self._facts:
            self._snapshot = snapshot
            self._facts.notify_all()

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """The handlers to register with a gRPC server."""
        unary, stream = self._calls.unary, self._calls.stream
        made = grpc.method_handlers_generic_handler
        watch: dict[str, Any] = {"NodeWatchResources": stream(self._watch)}
        return (
            made(
                REGISTRATION,
                {"GetInfo": unary(self._info), "NotifyRegistrationStatus": unary(self._notified)},
            ),
            made(
                SERVICE,
                {
                    "NodePrepareResources": unary(self._prepare_all),
                    "NodeUnprepareResources": unary(self._unprepare_all),
                },
            ),
            made(HEALTH, watch),
            made(OLD_HEALTH, watch),
        )

    def end_late(self) -> None:
        """End the calls whose request does not come. To be called every few seconds."""
        self._calls.end_late()

    def open(self) -> None:
        """Serve, also after `close`."""
        self._closed = False

    def close(self) -> None:
        """End the health streams, and whatever waits for facts."""
        with self._lock:
            self._closed = True
            streams = tuple(self._streams)
        for each in streams:
            each.close()
        with self._facts:
            self._facts.notify_all()

    # Registration. -------------------------------------------------------------------------------

    def _info(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        # No endpoint: the services are on the socket that this came through.
        return registration_api.PluginInfo(
            type="DRAPlugin",
            name=self._driver,
            supported_versions=[PLUGIN, HEALTH, OLD_HEALTH],
        ).SerializeToString()

    def _notified(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        status = decoded(registration_api.RegistrationStatus, request, context, STATUS_FIELDS)
        problem = "" if status.plugin_registered else status.error or "no reason was given"
        self._observer.registered(problem)
        return b""

    # Claims. -------------------------------------------------------------------------------------

    def _prepare_all(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = decoded(api.NodePrepareResourcesRequest, request, context, CLAIMS)
        answer = api.NodePrepareResourcesResponse()
        end = monotonic() + ANSWER_WITHIN
        for claim in asked.claims:
            entry = answer.claims[claim.uid]
            began = monotonic()
            name = f"{claim.namespace}/{claim.name}"
            try:
                found = self._prepared(claim.namespace, claim.name, claim.uid, end)
                self._before_start(found.prepared)
            except SgpudError as problem:
                reason = problem.reason if isinstance(problem, PrepareRefusedError) else "failed"
                entry.error = f"sgpud: {problem}"
                self._observer.refused(name, reason, str(problem))
            except Exception as problem:  # noqa: BLE001 - one claim must not fail the others
                self._log.failure("Preparing claim {claim} failed", claim=name)
                entry.error = f"sgpud: {problem!r}"
                self._observer.refused(name, "failed", repr(problem))
            else:
                self._observer.prepared(monotonic() - began)
                for device in found.devices:
                    made = entry.devices.add(
                        request_names=[device.request],
                        pool_name=device.pool,
                        device_name=device.device,
                        cdi_device_ids=device.cdi,
                    )
                    if device.share_id:
                        made.share_id = device.share_id
        return answer.SerializeToString()

    def _prepared(self, namespace: str, name: str, uid: str, end: float) -> InjectedClaim:
        if not UID.fullmatch(uid):
            raise PrepareRefusedError("invalid", f"{uid[:64]!r} is not the UID of a claim")
        known = self._store.record(uid)
        if known is not None and self._store.is_current(known):
            self._store.ensure_spec(known)
            return known.injected
        snapshot = self._known_facts(end)
        if known is None:
            within = min(READ_WITHIN, end - monotonic())
            claim = self._claims.read(namespace, name, uid, within)
        else:
            # The node has rebooted: the allocation is as it was, the device nodes may not be.
            claim = known.injected.prepared.claim
        snapshot = self._known_facts(end) or snapshot
        return self._store.add(lambda others: self._decided(claim, snapshot, others))

    def compare(self, recorded: Mapping[str, RecordedClaim]) -> None:
        """Have the claims as the kubelet has them on record; blocks.

        A claim of which a file was lost or corrupt is read from the API server once more; one that
        the kubelet no longer knows is dropped.
        """
        known = {claim.uid: claim for claim in self._store.claims}
        for claim in known.values():
            if claim.uid not in recorded and claim.since + LEFTOVER_AFTER < self._wall():
                self._log.warn("Dropping claim {uid}: the kubelet forgot it", uid=claim.uid)
                self._store.remove(claim.uid)
        for lost in recorded.values():
            if not lost.prepared or lost.uid in known or self._closed:
                continue
            name = f"{lost.namespace}/{lost.name}"
            try:
                self._prepared(lost.namespace, lost.name, lost.uid, monotonic() + RESTORE_WITHIN)
            except SgpudError as problem:
                self._log.warn(
                    "Cannot restore claim {claim}, which the kubelet lists as prepared: {problem}",
                    claim=name,
                    problem=str(problem),
                )
            else:
                self._log.info("Restored claim {claim} from the API server", claim=name)

    def _known_facts(self, end: float) -> DraSnapshot:
        with self._facts:
            within = min(FACTS_WITHIN, max(0.0, end - monotonic()))
            self._facts.wait_for(lambda: self._snapshot is not None or self._closed, within)
            if self._snapshot is None:
                raise PrepareRefusedError("unknown", "the GPUs of this node are not known yet")
            return self._snapshot

    def _decided(
        self, claim: AllocatedClaim, snapshot: DraSnapshot, others: Sequence[PreparedClaim]
    ) -> InjectedClaim:
        made = prepare(
            claim,
            snapshot.pool,
            snapshot.devices,
            snapshot.choice.unavailable,
            others,
            self._wall(),
        )
        for device, uuid in made.uuids.items():
            if uuid not in snapshot.gpus:
                raise PrepareRefusedError("device", f"{device}: the GPU is gone from this node")
        edits = injections(
            made,
            snapshot.gpus,
            snapshot.factors,
            snapshot.choice,
            snapshot.host,
            snapshot.cap_terms,
        )
        return injected(made, self._driver, edits)

    def _unprepare_all(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = decoded(api.NodeUnprepareResourcesRequest, request, context, CLAIMS)
        answer = api.NodeUnprepareResourcesResponse()
        for claim in asked.claims:
            entry = answer.claims[claim.uid]
            try:
                self._store.remove(claim.uid)
            except SgpudError as problem:
                entry.error = f"sgpud: {problem}"
            except Exception as problem:  # noqa: BLE001 - one claim must not fail the others
                self._log.failure("Unpreparing claim {claim} failed", claim=claim.name)
                entry.error = f"sgpud: {problem!r}"
        return answer.SerializeToString()

    # Health. -------------------------------------------------------------------------------------

    def _watch(self, _request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        follower = self.health.subscribe()
        if not context.add_callback(follower.close):
            return
        with self._lock:
            room = len(self._streams) < STREAMS
            if room:
                self._streams.append(follower)
            closed = self._closed
        if not room:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"sgpud: {STREAMS} streams live")
        if closed:
            follower.close()
        try:
            for report in follower:
                yield _health_message(report)
        finally:
            with self._lock:
                if follower in self._streams:
                    self._streams.remove(follower)


def _health_message(report: HealthReport) -> bytes:
    states = {True: health_api.HEALTHY, False: health_api.UNHEALTHY, None: health_api.UNKNOWN}
    answer = health_api.NodeWatchResourcesResponse()
    for one in report.devices:
        answer.devices.add(
            device=health_api.DeviceIdentifier(pool_name=report.pool, device_name=one.device),
            health=states[one.healthy],
            last_updated_time=report.at,
            health_check_timeout_seconds=HEALTH_TIMEOUT,
            message=one.message[:1024],
        )
    return answer.SerializeToString()
