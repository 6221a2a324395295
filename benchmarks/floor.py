"""The floor: a device plugin in bare grpcio that answers and knows nothing."""

import argparse
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message

from sgpud.kubelet.api import deviceplugin_pb2 as api

SEPARATOR = "-@-"  # not sgpud's: it would take ids of its own form over as left by an earlier run
UNARY, STREAM = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler


def _options(_request: api.Empty, _context: grpc.ServicerContext) -> api.DevicePluginOptions:
    return api.DevicePluginOptions(get_preferred_allocation_available=True)


def _prefer(request: api.PreferredAllocationRequest, _context: grpc.ServicerContext) -> Message:
    answer = api.PreferredAllocationResponse()
    for each in request.container_requests:
        answer.container_responses.add(deviceIDs=each.available_deviceIDs[: each.allocation_size])
    return answer


def _allocate(request: api.AllocateRequest, _context: grpc.ServicerContext) -> Message:
    answer = api.AllocateResponse()
    for each in request.container_requests:
        gpus = sorted({share.partition(SEPARATOR)[0] for share in each.devices_ids})
        answer.container_responses.add(envs={"NVIDIA_VISIBLE_DEVICES": ",".join(gpus)})
    return answer


def _handler(kind: Callable[..., Any], method: Callable[..., Any], request: type[Message]) -> Any:
    return kind(method, request.FromString, lambda answer: answer.SerializeToString())


def serve(path: Path, gpus: int, shares: int) -> grpc.Server:
    """A server on the unix socket `path` that lists `shares` shares of each GPU, once."""
    uuids = [f"GPU-{gpu:08x}-0000-0000-0000-000000000000" for gpu in range(gpus)]
    ids = [f"{uuid}{SEPARATOR}{n}" for uuid in uuids for n in range(shares)]
    devices = [api.Device(ID=share, health="Healthy") for share in ids]

    def watch(_request: api.Empty, context: grpc.ServicerContext) -> Iterator[Message]:
        ended = threading.Event()
        context.add_callback(ended.set)
        yield api.ListAndWatchResponse(devices=devices)
        ended.wait()

    handlers = {
        "GetDevicePluginOptions": _handler(UNARY, _options, api.Empty),
        "ListAndWatch": _handler(STREAM, watch, api.Empty),
        "GetPreferredAllocation": _handler(UNARY, _prefer, api.PreferredAllocationRequest),
        "Allocate": _handler(UNARY, _allocate, api.AllocateRequest),
    }
    unlimited = [("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(max_workers=16), options=unlimited)
    service = grpc.method_handlers_generic_handler("v1beta1.DevicePlugin", handlers)
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    return server


def main() -> None:
    """Serve until SIGTERM or SIGINT; print "registered" when the kubelet has answered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kubelet", type=Path, help="the kubelet's socket; ours stands beside it")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--shares", type=int, default=100, help="of each GPU")
    parser.add_argument("--resource", default="example.com/floor")
    parser.add_argument("--endpoint", default="floor.sock", help="our socket's file name")
    given = parser.parse_args()
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread: sigwait is to see them
    server = serve(given.kubelet.parent / given.endpoint, given.gpus, given.shares)
    request = api.RegisterRequest(
        version="v1beta1", endpoint=given.endpoint, resource_name=given.resource
    )
    with grpc.insecure_channel(f"unix:{given.kubelet}") as channel:
        encode, decode = api.RegisterRequest.SerializeToString, api.Empty.FromString
        register = channel.unary_unary("/v1beta1.Registration/Register", encode, decode)
        register(request, timeout=10, wait_for_ready=True)
    print("registered", flush=True)
    signal.sigwait(ends)
    server.stop(grace=None).wait(5)


if __name__ == "__main__":
    main()
