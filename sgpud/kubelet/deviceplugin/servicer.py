"""The device plugin service of one pool, as gRPC's workers run it: bytes in, bytes out.

Every answer is made from the latest snapshot, in memory. Nothing here calls NVML, touches a disk
or waits for the reactor: the kubelet sets no deadline on these calls, and a plugin that hangs in
one of them stops all pod admission on its node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import BoundedSemaphore, Lock
from typing import Protocol, TypeVar

import grpc
from attrs import define
from twisted.logger import Logger

from sgpud.bridge import Subscription
from sgpud.core.allocation.allocate import (
    Allocation,
    ChosenGpu,
    RefusalRule,
    RefusedError,
    Request,
    allocation,
    choose_all,
    requested,
)
from sgpud.core.allocation.decisions import failed, given, preferred, refused
from sgpud.core.allocation.preference import Preference, prefer, prefer_free
from sgpud.core.errors import SgpudError
from sgpud.core.intset import IntSet
from sgpud.core.planning.holdings import Grant
from sgpud.core.planning.plan import Plan
from sgpud.core.text import one_line
from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.kubelet.checkpoint import shares
from sgpud.kubelet.deviceplugin.messages import (
    container_response,
    decoded,
    offers,
    plugin_options,
    refuse_shape,
)
from sgpud.kubelet.deviceplugin.publisher import ServedPool, Snapshot, SnapshotPublisher
from sgpud.kubelet.incoming import IncomingCalls

Asked = TypeVar(
    "Asked",
    api.AllocateRequest,
    api.PreferredAllocationRequest,
    api.PreStartContainerRequest,
)

SERVICE = "v1beta1.DevicePlugin"
STREAMS = 3
"""ListAndWatch streams per endpoint at a time. Each holds a worker for its life, and one whose
client never reads holds it in gRPC; one more is refused, so that the workers for Allocate never run
out."""
STARTS = 8
"""Containers that are being started at a time: each holds a worker while it waits for the helper.
For one more the kubelet asks again."""
UNREAD_LOOKS = 60
"""Looks, a second apart, at a list message that is not read, until its stream is ended. A kubelet
reads the next list once it has written its checkpoint: a slow disk is no reason to cut it."""
CONTAINERS = 16
"""Container requests in one call, at most: the kubelet sends one."""
SLACK = 64 * 1024
"""Bytes of a request beyond the pool's ids."""
LOOKED_UP = 32
"""Shares of a preference, at most, that are looked up in the bytes of the request."""
LEAST_PER_ID = 16
"""Bytes of a list message per id, at least: how many ids it can have."""


BeforeStart = Callable[[str, Mapping[str, IntSet]], None]
"""What is to be done before a container starts, with its resource and its shares by the stem of
their ids. It may block; an SgpudError keeps the container from starting, and the kubelet asks
again."""


class ServicerObserver(Protocol):
    """What the workers tell, from their own threads."""

    def streams(self, live: int) -> None:
        """So many streams live now."""

    def refused(self, resource: str, refusal: RefusedError) -> None:
        """Shares were refused."""

    def listed(self, resource: str) -> None:
        """A list message is sent."""


@define(eq=False)
class ListStream:
    """A ListAndWatch stream that lives."""

    follower: Subscription[Snapshot | None]
    context: grpc.ServicerContext
    sending: bool = False
    """Whether gRPC has a message that the client has not made room for."""
    unread: int = 0
    """Looks at that message."""


class DevicePluginServicer:
    """Answers the kubelet for one pool and one endpoint."""

    _log = Logger()

    def __init__(
        self,
        resource: str,
        publisher: SnapshotPublisher,
        observer: ServicerObserver,
        wall: Callable[[], float],
        *,
        prefers: bool = True,
        before_start: BeforeStart | None = None,
    ) -> None:
        """`wall` gives seconds since the epoch; `prefers`: it matters which ids are chosen.

        `before_start`: the kubelet is to ask before each start of a container, in which it is
        called.
        """
        self.prefers = prefers
        self.asks = before_start is not None
        self._before_start = before_start
        self._starts = BoundedSemaphore(STARTS)
        self._resource = resource
        self._publisher = publisher
        self._decided = publisher.decisions
        self._observer = observer
        self._wall = wall
        self._calls = IncomingCalls()
        self._lock = Lock()
        self._streams: list[ListStream] = []
        self._held = False

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers to register with a gRPC server."""
        unary, stream = self._calls.unary, self._calls.stream
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "GetDevicePluginOptions": unary(self._options),
                "ListAndWatch": stream(self._list_and_watch),
                "GetPreferredAllocation": unary(self._prefer),
                "Allocate": unary(self._allocate),
                "PreStartContainer": unary(self._start),
            },
        )

    def close(self) -> None:
        """End every stream."""
        with self._lock:
            streams = tuple(self._streams)
        for stream in streams:
            stream.follower.close()

    def hold(self) -> None:
        """Send no more lists on any stream."""
        self._held = True

    def end_unread(self) -> None:
        """End the streams whose client does not read, and the calls whose request does not come.

        To be called once a second.
        """
        self._calls.end_late()
        with self._lock:
            for stream in self._streams:
                stream.unread = stream.unread + 1 if stream.sending else 0
            stuck = [stream for stream in self._streams if stream.unread >= UNREAD_LOOKS]
        for stream in stuck:
            self._log.warn(
                "{resource}: a list message was not read within {seconds} s; ending its stream",
                resource=self._resource,
                seconds=UNREAD_LOOKS,
            )
            # The worker is inside gRPC: only the end of the call brings it back.
            stream.context.cancel()

    def _list_and_watch(self, _request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        stream = ListStream(self._publisher.subscribe(), context)
        # Without this a stream whose kubelet has gone would hold its worker for ever.
        if not context.add_callback(lambda: self._ended(stream)):
            return
        if not self._opened(stream):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"sgpud: {STREAMS} streams live")
        try:
            sent: tuple[bytes, int] | None = None
            for snapshot in stream.follower:
                served = snapshot.pools.get(self._resource) if snapshot else None
                if served is None or self._held:
                    continue
                if sent != (served.message.data, served.resends):
                    sent = (served.message.data, served.resends)
                    self._observer.listed(self._resource)
                    stream.sending = True
                    yield served.message.data
                    stream.sending = False
        finally:
            self._ended(stream)

    def _opened(self, stream: ListStream) -> bool:
        """Count a stream in, if there is room for it."""
        with self._lock:
            room = len(self._streams) < STREAMS
            if room:
                self._streams.append(stream)
                self._observer.streams(len(self._streams))
        return room

    def _ended(self, stream: ListStream) -> None:
        """Count a stream out, and the others with it if it was the first one.

        The kubelet opens its stream in the moment of registration, and none after that: once it has
        ended, what others read keeps nothing registered.
        """
        stream.follower.close()
        with self._lock:
            if stream not in self._streams:
                return
            first = stream is self._streams[0]
            others = self._streams[1:] if first else []
            self._streams = [] if first else [one for one in self._streams if one is not stream]
            self._observer.streams(len(self._streams))
        for other in others:
            other.follower.close()
            other.context.cancel()

    def _options(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        return plugin_options(prefers=self.prefers, asks=self.asks)

    def _prefer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        # All that are free, and among them those that must be in it.
        asked = self._parsed(api.PreferredAllocationRequest, request, context, lists=2)
        snapshot = self._publisher.snapshot
        served = snapshot.pools.get(self._resource) if snapshot else None
        answer = api.PreferredAllocationResponse()
        # With several containers it would not be known whose list an id is in.
        single = request if len(asked.container_requests) == 1 else b""
        for one in asked.container_requests:
            chosen = self._choose(snapshot, served, one, single)
            answer.container_responses.add(deviceIDs=chosen)
        return answer.SerializeToString()

    def _choose(
        self,
        snapshot: Snapshot | None,
        served: ServedPool | None,
        one: api.ContainerPreferredAllocationRequest,
        request: bytes,
    ) -> list[str]:
        size = one.allocation_size
        if snapshot is not None and served is not None:
            try:
                plan, pool = snapshot.plan, served.pool
                chosen = _of_known(plan, served, one, request) or prefer(
                    plan, pool, served.index, *_lists(one), size
                )
                seen = served.gpu_snapshots[: len(chosen.taken)]
                said = preferred(self._wall(), plan, pool, seen, chosen)
            except Exception as problem:  # noqa: BLE001 - an error here fails the pod, any valid answer does not
                self._log.failure("Choosing shares of {resource} failed", resource=self._resource)
                self._decided.add(failed(self._wall(), self._resource, size, repr(problem)))
            else:
                self._decided.add(said)
                return chosen.ids
        available, must = _lists(one)
        return list(dict.fromkeys([*must, *available]))[: max(0, size)]

    def _allocate(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        asked = self._parsed(api.AllocateRequest, request, context, lists=1)
        wanted = [list(one.devices_ids) for one in asked.container_requests]
        try:
            granted = self._granted(wanted)
        except RefusedError as refusal:
            self._refused([one for ids in wanted for one in ids], refusal)
            invalid, failed = (
                grpc.StatusCode.INVALID_ARGUMENT,
                grpc.StatusCode.FAILED_PRECONDITION,
            )
            context.abort(
                invalid if refusal.invalid else failed, f"sgpud: {one_line(str(refusal))}"
            )
        answer = api.AllocateResponse()
        answer.container_responses.extend(container_response(one.answer) for one in granted)
        return answer.SerializeToString()

    def _start(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if self._before_start is None:
            return b""
        asked = self._parsed(api.PreStartContainerRequest, request, context, lists=0)
        if not self._starts.acquire(blocking=False):
            # It waits for the helper, and Allocate must not wait for a worker.
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"sgpud: {STARTS} containers are being started"
            )
        try:
            self._before_start(self._resource, shares(asked.devices_ids, self._resource))
        except SgpudError as problem:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"sgpud: {one_line(str(problem))}")
        finally:
            self._starts.release()
        return b""

    def _refused(self, ids: list[str], refusal: RefusedError) -> None:
        snapshot, now = self._publisher.snapshot, self._wall()
        served = snapshot.pools.get(self._resource) if snapshot else None
        seen, known = (served.gpu_snapshots, served.index) if served else ((), None)
        self._decided.add(refused(now, self._resource, ids, seen, known, refusal))
        self._observer.refused(self._resource, refusal)

    def _granted(self, wanted: Sequence[list[str]]) -> list[Allocation]:
        """What each container is given, with the notes taken: all of it, or RefusedError.

        Only the choice is made under the lock, where it sees every grant before it: 16 callers
        wait for it.
        """
        if not wanted:
            return []
        snapshot, now = self._publisher.snapshot, self._wall()
        known = self._requested(snapshot, wanted)

        def decide(
            latest: Snapshot | None,
        ) -> tuple[tuple[Plan, ServedPool, list[ChosenGpu]], list[Grant]]:
            plan, served = self._served(latest, ())
            requests = known if latest is snapshot else self._requested(latest, wanted)
            choices = choose_all(plan, served.pool, requests, served.pending, now)
            grants = [choice.grant(self._resource, now) for choice in choices]
            for grant in grants:
                served.pending.note(grant, served.pool)
            return (plan, served, choices), grants

        plan, served, choices = self._publisher.published.decide(decide)
        granted = [allocation(plan, served.pool, choice, now) for choice in choices]
        for one in granted:
            self._decided.add(given(now, served.pool, served.gpu_snapshots, one))
        return granted

    def _requested(self, snapshot: Snapshot | None, wanted: Sequence[list[str]]) -> list[Request]:
        return [requested(self._served(snapshot, ids)[1].index, ids) for ids in wanted]

    def _served(self, snapshot: Snapshot | None, ids: Sequence[str]) -> tuple[Plan, ServedPool]:
        served = snapshot.pools.get(self._resource) if snapshot else None
        if snapshot is None or served is None:
            raise RefusedError(RefusalRule.UNKNOWN, ids, f"{self._resource} is not served: ")
        return snapshot.plan, served

    def _parsed(
        self, message: type[Asked], request: bytes, context: grpc.ServicerContext, lists: int
    ) -> Asked:
        """The request, if it is one that a kubelet can send.

        `lists`: how often it has each id, within the containers; 0: it is a list of ids itself.
        """
        snapshot = self._publisher.snapshot
        served = snapshot.pools.get(self._resource) if snapshot else None
        most = max(1, lists) * (len(served.message.data) if served else 0) + SLACK
        fields = CONTAINERS if lists else most
        if len(request) > most:
            refuse_shape(context)
        asked = decoded(message, request, context, fields)
        if _count(asked) > most // LEAST_PER_ID:
            refuse_shape(context)
        return asked


def _of_known(
    plan: Plan,
    served: ServedPool,
    one: api.ContainerPreferredAllocationRequest,
    request: bytes,
) -> Preference | None:
    """What is preferred, if as many shares are available as sgpud takes for free.

    Then these are the available ones, and of thousands of ids only the chosen are looked at. None
    where that is not so.
    """
    if served.pool.memory or one.must_include_deviceIDs or not 0 < one.allocation_size <= LOOKED_UP:
        return None
    free = served.pending.free(served.pool)
    if sum(map(len, free)) != len(one.available_deviceIDs):
        return None
    found = prefer_free(plan, served.pool, free, one.allocation_size)
    enough = len(found.ids) == one.allocation_size
    return found if enough and all(offers(request, each) for each in found.ids) else None


def _lists(one: api.ContainerPreferredAllocationRequest) -> tuple[list[str], list[str]]:
    """(available, must be included)."""
    return list(one.available_deviceIDs), list(one.must_include_deviceIDs)


def _count(
    asked: api.AllocateRequest | api.PreferredAllocationRequest | api.PreStartContainerRequest,
) -> int:
    """How many ids there are in a request."""
    if isinstance(asked, api.PreStartContainerRequest):
        return len(asked.devices_ids)
    if isinstance(asked, api.AllocateRequest):
        return sum(len(one.devices_ids) for one in asked.container_requests)
    return sum(
        len(one.available_deviceIDs) + len(one.must_include_deviceIDs)
        for one in asked.container_requests
    )
