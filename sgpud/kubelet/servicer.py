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

from sgpud.bridge import Follower
from sgpud.core.allocation import Granted, RefusalRule, RefusedError, allocate
from sgpud.core.holding import Grant
from sgpud.core.placement import prefer
from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.kubelet.codec import OPTIONS, container_response
from sgpud.kubelet.shelf import Served, Shelf, Snapshot

M = TypeVar("M", bound=Message)

SERVICE = "v1beta1.DevicePlugin"
STREAMS = 3
"""ListAndWatch streams per endpoint. Each holds a worker for its life; the kubelet opens one, and
a fourth ends the oldest, so that the workers for Allocate never run out."""


class Told(Protocol):
    """What the workers tell, from their own threads."""

    def streams(self, live: int) -> None:
        """So many streams live now."""

    def refused(self, resource: str, refusal: RefusedError) -> None:
        """Shares were refused."""

    def listed(self, resource: str) -> None:
        """A list message is sent."""


class Servicer:
    """Answers the kubelet for one pool and one endpoint."""

    _log = Logger()

    def __init__(self, resource: str, shelf: Shelf, told: Told, wall: Callable[[], float]) -> None:
        """`wall` gives seconds since the epoch."""
        self._resource = resource
        self._shelf = shelf
        self._told = told
        self._wall = wall
        self._lock = Lock()
        self._streams: deque[Follower[Snapshot | None]] = deque()

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
        follower = self._shelf.follow()
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
                    self._told.listed(self._resource)
                    yield served.message.data
        finally:
            self._ended(follower)

    def _opened(self, follower: Follower[Snapshot | None]) -> None:
        with self._lock:
            self._streams.append(follower)
            if len(self._streams) > STREAMS:
                self._streams.popleft().close()
            self._told.streams(len(self._streams))

    def _ended(self, follower: Follower[Snapshot | None]) -> None:
        with self._lock:
            if follower in self._streams:
                self._streams.remove(follower)
            self._told.streams(len(self._streams))

    def _prefer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = _parsed(api.PreferredAllocationRequest, request, context)
        snapshot = self._shelf.snapshot
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
        served: Served | None,
        available: list[str],
        must: list[str],
        size: int,
    ) -> list[str]:
        if snapshot is not None and served is not None:
            try:
                return prefer(snapshot.plan, served.pool, served.index, available, must, size)
            except Exception:  # noqa: BLE001 - an error here fails the pod, any valid answer does not
                self._log.failure("Choosing shares of {resource} failed", resource=self._resource)
        return list(dict.fromkeys([*must, *available]))[: max(0, size)]

    def _allocate(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = _parsed(api.AllocateRequest, request, context)
        answer = api.AllocateResponse()
        for one in asked.container_requests:
            ids = list(one.devices_ids)
            try:
                granted = self._granted(ids)
            except RefusedError as refusal:
                self._told.refused(self._resource, refusal)
                invalid, failed = (
                    grpc.StatusCode.INVALID_ARGUMENT,
                    grpc.StatusCode.FAILED_PRECONDITION,
                )
                context.abort(invalid if refusal.invalid else failed, f"sgpud: {refusal}")
            answer.container_responses.append(container_response(granted.answer))
        return answer.SerializeToString()

    def _granted(self, ids: list[str]) -> Granted:
        """What is given, with its note taken. Thought out before the lock is: 16 callers wait."""
        snapshot = self._shelf.snapshot
        decided = self._grant(ids, snapshot)
        return self._shelf.published.decide(
            lambda latest: decided if latest is snapshot else self._grant(ids, latest)
        )

    def _grant(self, ids: list[str], snapshot: Snapshot | None) -> tuple[Granted, Grant]:
        served = snapshot.pools.get(self._resource) if snapshot else None
        if snapshot is None or served is None:
            raise RefusedError(RefusalRule.UNKNOWN, ids, f"{self._resource} is not served: ")
        now = self._wall()
        granted = allocate(snapshot.plan, served.pool, served.index, ids, now)
        grant = Grant(self._resource, granted.shares, granted.per_gpu, now, granted.sizes)
        return granted, grant


def _parsed(message: type[M], request: bytes, context: grpc.ServicerContext) -> M:
    try:
        return message.FromString(request)
    except DecodeError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "sgpud: the request cannot be decoded")
