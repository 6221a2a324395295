"""The device plugin service of one pool, as gRPC's workers run it: bytes in, bytes out.

Every answer is made from the latest snapshot, in memory. Nothing here calls NVML, touches a disk
or waits for the reactor: the kubelet sets no deadline on these calls, and a plugin that hangs in
one of them stops all pod admission on its node.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from twisted.logger import Logger

from sgpud.bridge import Subscription
from sgpud.core.allocation.allocate import Allocation, RefusalRule, RefusedError, allocate
from sgpud.core.allocation.decisions import Decision, failed, given, preferred, refused
from sgpud.core.allocation.preference import prefer
from sgpud.core.planning.holdings import Grant
from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.kubelet.deviceplugin.messages import OPTIONS, container_response
from sgpud.kubelet.deviceplugin.publisher import ServedPool, Snapshot, SnapshotPublisher

M = TypeVar("M", bound=Message)

SERVICE = "v1beta1.DevicePlugin"
STREAMS = 3
"""ListAndWatch streams per endpoint. Each holds a worker for its life; the kubelet opens one, and
a fourth ends the oldest, so that the workers for Allocate never run out."""


class ServicerObserver(Protocol):
    """What the workers tell, from their own threads."""

    def streams(self, live: int) -> None:
        """So many streams live now."""

    def refused(self, resource: str, refusal: RefusedError) -> None:
        """Shares were refused."""

    def listed(self, resource: str) -> None:
        """A list message is sent."""


class DevicePluginServicer:
    """Answers the kubelet for one pool and one endpoint."""

    _log = Logger()

    def __init__(
        self,
        resource: str,
        publisher: SnapshotPublisher,
        observer: ServicerObserver,
        wall: Callable[[], float],
    ) -> None:
        """`wall` gives seconds since the epoch."""
        self._resource = resource
        self._publisher = publisher
        self._decided = publisher.decisions
        self._observer = observer
        self._wall = wall
        self._lock = Lock()
        self._streams: deque[Subscription[Snapshot | None]] = deque()

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers to register with a gRPC server."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "GetDevicePluginOptions": unary(lambda _request, _context: OPTIONS),
                "ListAndWatch": stream(self._list_and_watch),
                "GetPreferredAllocation": unary(self._prefer),
                "Allocate": unary(self._allocate),
                "PreStartContainer": unary(lambda _request, _context: b""),
            },
        )

    def close(self) -> None:
        """End every stream."""
        with self._lock:
            followers = tuple(self._streams)
        for follower in followers:
            follower.close()

    def _list_and_watch(self, _request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        follower = self._publisher.subscribe()
        # Without this a stream whose kubelet has gone would hold its worker for ever.
        if not context.add_callback(follower.close):
            return
        self._opened(follower)
        try:
            sent: tuple[bytes, int] | None = None
            for snapshot in follower:
                served = snapshot.pools.get(self._resource) if snapshot else None
                if served is None:
                    continue
                if sent != (served.message.data, served.nudges):
                    sent = (served.message.data, served.nudges)
                    self._observer.listed(self._resource)
                    yield served.message.data
        finally:
            self._ended(follower)

    def _opened(self, follower: Subscription[Snapshot | None]) -> None:
        with self._lock:
            self._streams.append(follower)
            if len(self._streams) > STREAMS:
                self._streams.popleft().close()
            self._observer.streams(len(self._streams))

    def _ended(self, follower: Subscription[Snapshot | None]) -> None:
        with self._lock:
            if follower in self._streams:
                self._streams.remove(follower)
            self._observer.streams(len(self._streams))

    def _prefer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = _parsed(api.PreferredAllocationRequest, request, context)
        snapshot = self._publisher.snapshot
        served = snapshot.pools.get(self._resource) if snapshot else None
        answer = api.PreferredAllocationResponse()
        for one in asked.container_requests:
            available, must = list(one.available_deviceIDs), list(one.must_include_deviceIDs)
            chosen = self._choose(snapshot, served, available, must, one.allocation_size)
            answer.container_responses.add(deviceIDs=chosen)
        return answer.SerializeToString()

    def _choose(
        self,
        snapshot: Snapshot | None,
        served: ServedPool | None,
        available: list[str],
        must: list[str],
        size: int,
    ) -> list[str]:
        if snapshot is not None and served is not None:
            try:
                pool = served.pool
                chosen = prefer(snapshot.plan, pool, served.index, available, must, size)
                said = preferred(self._wall(), snapshot.plan, pool, served.gpu_snapshots, chosen)
            except Exception as problem:  # noqa: BLE001 - an error here fails the pod, any valid answer does not
                self._log.failure("Choosing shares of {resource} failed", resource=self._resource)
                self._decided.add(failed(self._wall(), self._resource, size, repr(problem)))
            else:
                self._decided.add(said)
                return chosen.ids
        return list(dict.fromkeys([*must, *available]))[: max(0, size)]

    def _allocate(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = _parsed(api.AllocateRequest, request, context)
        answer = api.AllocateResponse()
        for one in asked.container_requests:
            ids = list(one.devices_ids)
            try:
                granted = self._granted(ids)
            except RefusedError as refusal:
                self._refused(ids, refusal)
                invalid, failed = (
                    grpc.StatusCode.INVALID_ARGUMENT,
                    grpc.StatusCode.FAILED_PRECONDITION,
                )
                context.abort(invalid if refusal.invalid else failed, f"sgpud: {refusal}")
            answer.container_responses.append(container_response(granted.answer))
        return answer.SerializeToString()

    def _refused(self, ids: list[str], refusal: RefusedError) -> None:
        snapshot, now = self._publisher.snapshot, self._wall()
        served = snapshot.pools.get(self._resource) if snapshot else None
        seen, known = (served.gpu_snapshots, served.index) if served else ((), None)
        self._decided.add(refused(now, self._resource, ids, seen, known, refusal))
        self._observer.refused(self._resource, refusal)

    def _granted(self, ids: list[str]) -> Allocation:
        """What is given, with its note taken. Thought out before the lock is: 16 callers wait."""
        snapshot = self._publisher.snapshot
        thought = self._grant(ids, snapshot)
        granted, decision = self._publisher.published.decide(
            lambda latest: thought if latest is snapshot else self._grant(ids, latest)
        )
        self._decided.add(decision)
        return granted

    def _grant(
        self, ids: list[str], snapshot: Snapshot | None
    ) -> tuple[tuple[Allocation, Decision], Grant]:
        served = snapshot.pools.get(self._resource) if snapshot else None
        if snapshot is None or served is None:
            raise RefusedError(RefusalRule.UNKNOWN, ids, f"{self._resource} is not served: ")
        now = self._wall()
        granted = allocate(snapshot.plan, served.pool, served.index, ids, now)
        grant = Grant(self._resource, granted.shares, granted.per_gpu, now, granted.sizes)
        return (granted, given(now, served.pool, served.gpu_snapshots, granted)), grant


def _parsed(message: type[M], request: bytes, context: grpc.ServicerContext) -> M:
    try:
        return message.FromString(request)
    except DecodeError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "sgpud: the request cannot be decoded")
