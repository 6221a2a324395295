"""The kubelet's podresources server, version v1: which container holds what."""

from __future__ import annotations

import contextlib
import enum
import threading
from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf.message import Message

from sgpud.kubelet.api import podresources_pb2 as api
from sgpud.testing.kubelet.checkpoint import WITHOUT_TOPOLOGY
from sgpud.testing.kubelet.faults import Gate
from sgpud.testing.kubelet.listener import BoundServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sgpud.testing.kubelet.checkpoint import PodDevices
    from sgpud.testing.kubelet.device_manager import DeviceManager, Pod

_Request = TypeVar("_Request", bound=Message)

QPS = 100.0
"""Queries answered each second, beyond the burst."""
BURST = 10.0
"""Queries answered at once."""


class PodResourcesFault(enum.Enum):
    """A way in which podresources can be wrong."""

    ABSENT = "there is no socket"
    HANGING = "no call is answered"
    GARBAGE = "the answers are not messages"
    FAILING = "every call is an error"


class PodResourcesServer:
    """Serves List, Get and GetAllocatableResources while the kubelet runs."""

    def __init__(self, path: Path | None, manager: DeviceManager) -> None:
        """Serve on this path; never, without one."""
        self.path = path
        self._manager = manager
        self._fault: tuple[PodResourcesFault | None, Gate] = (None, Gate())
        self._server: BoundServer | None = None
        self._live = False
        self._tokens = BURST
        self._counted = manager.clock()
        self._lock = threading.Lock()

    def set_fault(self, fault: PodResourcesFault | None) -> None:
        """Be wrong in this way from now on; None mends it and lets go on what hangs."""
        self._fault[1].release()
        self._fault = (fault, Gate())
        if self._live:
            self._serve()

    def start(self) -> None:
        """Begin to serve, with the kubelet's life."""
        self._live = True
        self._serve()

    def stop(self) -> None:
        """Stop serving."""
        self._live = False
        self._stop()

    def _serve(self) -> None:
        if self._fault[0] is PodResourcesFault.ABSENT:
            self._stop()
        elif self.path is not None and self._server is None:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            self._server = BoundServer(self.path, self._handlers())

    def _stop(self) -> None:
        server, self._server = self._server, None
        fault, gate = self._fault
        if server is not None:
            server.cancel()
        gate.release()
        if server is not None:
            server.close(leave_socket=False)
        self._fault = (fault, Gate())

    def _handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "v1.PodResourcesLister",
            {
                "List": self._handler(api.ListPodResourcesRequest, self._list),
                "Get": self._handler(api.GetPodResourcesRequest, self._get),
                "GetAllocatableResources": self._handler(
                    api.AllocatableResourcesRequest, self._allocatable
                ),
            },
        )

    def _handler(
        self, kind: type[_Request], answer: Callable[[_Request, grpc.ServicerContext], Message]
    ) -> grpc.RpcMethodHandler[_Request, bytes]:
        def handle(request: _Request, context: grpc.ServicerContext) -> bytes:
            fault, gate = self._fault
            if fault is PodResourcesFault.HANGING:
                gate.hold()
            if fault is PodResourcesFault.GARBAGE:
                return b"\xff\xff\xff garbage"
            if fault is PodResourcesFault.FAILING:
                context.abort(grpc.StatusCode.INTERNAL, "the stand-in kubelet is set to fail")
            if not self._within_rate():
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
            return answer(request, context).SerializeToString()

        return grpc.unary_unary_rpc_method_handler(handle, request_deserializer=kind.FromString)

    def _within_rate(self) -> bool:
        with self._lock:
            now = self._manager.clock()
            self._tokens = min(BURST, self._tokens + (now - self._counted) * QPS)
            self._counted = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True

    def _list(
        self, _: api.ListPodResourcesRequest, __: grpc.ServicerContext
    ) -> api.ListPodResourcesResponse:
        with self._manager.changed:
            self._manager.free_finished()
            pods = [pod for pod in self._manager.pods.values() if not pod.finished]
            return api.ListPodResourcesResponse(pod_resources=map(self._pod, pods))

    def _get(
        self, request: api.GetPodResourcesRequest, context: grpc.ServicerContext
    ) -> api.GetPodResourcesResponse:
        with self._manager.changed, contextlib.suppress(StopIteration):
            pod = next(
                pod
                for pod in self._manager.pods.values()
                if (pod.name, pod.namespace) == (request.pod_name, request.pod_namespace)
            )
            return api.GetPodResourcesResponse(pod_resources=self._pod(pod))
        context.abort(
            grpc.StatusCode.UNKNOWN,
            f"no such pod: {request.pod_namespace}/{request.pod_name}",
        )
        raise AssertionError  # abort has raised

    def _allocatable(
        self, _: api.AllocatableResourcesRequest, __: grpc.ServicerContext
    ) -> api.AllocatableResourcesResponse:
        with self._manager.changed:
            return api.AllocatableResourcesResponse(
                devices=[
                    _devices(name, i, known.listed[i].numa)
                    for name, known in self._manager.resources.items()
                    for i in known.healthy
                ]
            )

    def _pod(self, pod: Pod) -> api.PodResources:
        held: dict[str, list[api.ContainerDevices]] = {
            name: [] for name in pod.wants if name not in pod.init
        }
        for slot, one in self._manager.allocations.items():
            if slot.pod_uid == pod.uid and slot.container in held:
                held[slot.container] += _allocated(slot.resource, one)
        return api.PodResources(
            name=pod.name,
            namespace=pod.namespace,
            containers=[
                api.ContainerResources(name=name, devices=devices) for name, devices in held.items()
            ],
        )


def _allocated(resource: str, allocation: PodDevices) -> list[api.ContainerDevices]:
    return [
        _devices(resource, i, None if node == WITHOUT_TOPOLOGY else node)
        for node, ids in allocation.by_node.items()
        for i in ids
    ]


def _devices(resource: str, i: str, numa: int | None) -> api.ContainerDevices:
    # One message for each id, as the kubelet sends them.
    topology = None if numa is None else api.TopologyInfo(nodes=[api.NUMANode(ID=numa)])
    return api.ContainerDevices(resource_name=resource, device_ids=[i], topology=topology)
