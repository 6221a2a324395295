"""A scripted plugin in plain grpcio: what the tests of the stand-in kubelet talk to it with."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from typing import TYPE_CHECKING

import grpc

from sgpud.kubelet.api import deviceplugin_pb2 as api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from typing_extensions import Self

RESOURCE = "example.com/shared"


def device_list(devices: Mapping[str, bool], numa: int | None = None) -> api.ListAndWatchResponse:
    """Give a list message of ids and whether each is healthy."""
    topology = None if numa is None else api.TopologyInfo(nodes=[api.NUMANode(ID=numa)])
    return api.ListAndWatchResponse(
        devices=[
            api.Device(ID=i, health="Healthy" if healthy else "Unhealthy", topology=topology)
            for i, healthy in devices.items()
        ]
    )


def echo(request: api.AllocateRequest) -> api.AllocateResponse:
    """Answer Allocate with the ids in an environment variable."""
    return api.AllocateResponse(
        container_responses=[
            api.ContainerAllocateResponse(envs={"IDS": ",".join(sorted(one.devices_ids))})
            for one in request.container_requests
        ]
    )


class RefusedError(Exception):
    """Raised by a script to answer with an error."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


class ScriptedPlugin:
    """One endpoint. `allocate`, `prefer` and `pre_start` are functions that a test may replace."""

    def __init__(self, directory: Path, endpoint: str = "a.sock", resource: str = RESOURCE) -> None:
        self.directory = directory
        self.endpoint = endpoint
        self.resource = resource
        self.options = api.DevicePluginOptions()
        self.allocate: Callable[[api.AllocateRequest], api.AllocateResponse] = echo
        self.prefer: Callable[[api.PreferredAllocationRequest], api.PreferredAllocationResponse] = (
            lambda _: api.PreferredAllocationResponse()
        )
        self.pre_start: Callable[[api.PreStartContainerRequest], object] = lambda _: None
        self.allocations: list[tuple[str, ...]] = []
        self.preferences: list[api.ContainerPreferredAllocationRequest] = []
        self.stream_opened = threading.Event()
        self.stream_ended = threading.Event()
        self._lists: list[queue.SimpleQueue[api.ListAndWatchResponse | None]] = []
        self._last: api.ListAndWatchResponse | None = None
        self._lock = threading.Lock()
        self._pool = concurrent.futures.ThreadPoolExecutor(16)
        self._server = grpc.server(self._pool)
        self._server.add_generic_rpc_handlers((self._handlers(),))
        if not self._server.add_insecure_port(f"unix:{directory / endpoint}"):
            raise OSError(endpoint)
        self._server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def send(self, devices: Mapping[str, bool], numa: int | None = None) -> None:
        """Send a list on every stream, and on those opened later."""
        self.send_message(device_list(devices, numa))

    def send_message(self, message: api.ListAndWatchResponse) -> None:
        """Send a list message as it is."""
        with self._lock:
            self._last = message
            for one in self._lists:
                one.put(self._last)

    def register(
        self, *, version: str = "v1beta1", resource: str | None = None, timeout: float = 20
    ) -> None:
        """Call Register; grpc.RpcError when it is refused."""
        with grpc.insecure_channel(
            f"unix:{self.directory / 'kubelet.sock'}",
            options=(("grpc.use_local_subchannel_pool", 1),),
        ) as channel:
            call = channel.unary_unary(
                "/v1beta1.Registration/Register",
                request_serializer=api.RegisterRequest.SerializeToString,
                response_deserializer=api.Empty.FromString,
            )
            request = api.RegisterRequest(
                version=version,
                endpoint=self.endpoint,
                resource_name=resource or self.resource,
            )
            call(request, timeout=timeout)

    def end_streams(self) -> None:
        """End every stream from this side."""
        with self._lock:
            for one in self._lists:
                one.put(None)

    def stop(self) -> None:
        """Stop serving."""
        self.end_streams()
        self._server.stop(None).wait(10)
        self._pool.shutdown()

    def _handlers(self) -> grpc.GenericRpcHandler:
        unary = grpc.unary_unary_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            "v1beta1.DevicePlugin",
            {
                "GetDevicePluginOptions": unary(
                    lambda _request, _context: self.options,
                    api.Empty.FromString,
                    api.DevicePluginOptions.SerializeToString,
                ),
                "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                    self._list_and_watch,
                    api.Empty.FromString,
                    api.ListAndWatchResponse.SerializeToString,
                ),
                "Allocate": unary(
                    self._allocate,
                    api.AllocateRequest.FromString,
                    api.AllocateResponse.SerializeToString,
                ),
                "GetPreferredAllocation": unary(
                    self._prefer,
                    api.PreferredAllocationRequest.FromString,
                    api.PreferredAllocationResponse.SerializeToString,
                ),
                "PreStartContainer": unary(
                    self._pre_start,
                    api.PreStartContainerRequest.FromString,
                    api.PreStartContainerResponse.SerializeToString,
                ),
            },
        )

    def _list_and_watch(
        self, _: api.Empty, context: grpc.ServicerContext
    ) -> Iterator[api.ListAndWatchResponse]:
        mine: queue.SimpleQueue[api.ListAndWatchResponse | None] = queue.SimpleQueue()
        with self._lock:
            self._lists.append(mine)
            if self._last is not None:
                mine.put(self._last)

        def ended() -> None:
            self.stream_ended.set()
            mine.put(None)

        if not context.add_callback(ended):
            ended()  # the call is over already: nobody would call it
        self.stream_opened.set()
        yield from iter(mine.get, None)

    def _allocate(
        self, request: api.AllocateRequest, context: grpc.ServicerContext
    ) -> api.AllocateResponse:
        self.allocations += [tuple(one.devices_ids) for one in request.container_requests]
        try:
            return self.allocate(request)
        except RefusedError as refusal:
            context.abort(refusal.code, refusal.details)
            raise

    def _prefer(
        self, request: api.PreferredAllocationRequest, context: grpc.ServicerContext
    ) -> api.PreferredAllocationResponse:
        self.preferences += list(request.container_requests)
        try:
            return self.prefer(request)
        except RefusedError as refusal:
            context.abort(refusal.code, refusal.details)
            raise

    def _pre_start(
        self, request: api.PreStartContainerRequest, context: grpc.ServicerContext
    ) -> api.PreStartContainerResponse:
        try:
            self.pre_start(request)
        except RefusedError as refusal:
            context.abort(refusal.code, refusal.details)
        return api.PreStartContainerResponse()
