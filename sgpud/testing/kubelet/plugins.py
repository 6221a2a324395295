"""The kubelet's side of one connection to one plugin: dial, options, list stream, calls."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError

from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.testing.kubelet.records import DeviceList, ListedDevice, PluginHung, RpcCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from google.protobuf.message import Message

    from sgpud.testing.kubelet.device_manager import DeviceManager

SERVICE = "/v1beta1.DevicePlugin/"
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)

Answer = TypeVar("Answer", bound="Message")


class PluginError(Exception):
    """A call to a plugin failed, or it could not be reached."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        """Keep the plugin's own words."""
        super().__init__(f"{code.name}: {details}")
        self.code = code
        self.details = details


class Stream(Protocol):
    """What gRPC gives for a call that answers with a stream."""

    def __iter__(self) -> Iterator[bytes]: ...

    def cancel(self) -> object:
        """End the call from this side."""


class ExtraStream:
    """A further ListAndWatch on a plugin's connection, read in a thread of its own."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._status = (grpc.StatusCode.OK, "")
        threading.Thread(target=self._read, name="extra list", daemon=True).start()

    def next(self, timeout: float) -> bytes:
        """Give the next message's bytes; TimeoutError after `timeout` seconds without one."""
        try:
            return self._messages.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"no list message within {timeout} s") from None

    def wait_ended(self, timeout: float) -> tuple[grpc.StatusCode, str]:
        """Wait for the stream's end and give its status; TimeoutError when it does not end."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the stream did not end within {timeout} s")
        return self._status

    def cancel(self) -> None:
        """End the stream from this side."""
        self._stream.cancel()

    def _read(self) -> None:
        try:
            for data in self._stream:
                self._messages.put(data)
        except grpc.RpcError as error:
            self._status = status_of(error)
        finally:
            self._ended.set()


def status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    """Give a failed call's status and words."""
    return error.code(), error.details() or ""


class PluginClient:
    """One connection to a plugin. It has gRPC's default receive limit, 4 MiB, and no keepalive."""

    def __init__(self, resource: str, socket: Path, manager: DeviceManager) -> None:
        """Make the channel; nothing is dialled before the first call."""
        self.resource = resource
        self.socket = socket
        self.options = api.DevicePluginOptions()
        self.reading = threading.Event()
        self.reading.set()
        self._manager = manager
        self._channel = grpc.insecure_channel(f"unix:{socket}", options=_OWN_CONNECTION)
        self._thread: threading.Thread | None = None

    def connect(self, timeout: float) -> None:
        """Dial and ask for the options; PluginError after `timeout` seconds.

        One time limit covers both. The real kubelet waits 10 s for the connection and then without
        end for the options.
        """
        self.options = self._call(
            "GetDevicePluginOptions", api.Empty(), api.DevicePluginOptions, timeout, dial=True
        )

    def follow(self, ended: Callable[[PluginClient], None]) -> None:
        """Read ListAndWatch in a thread until the stream ends, then call `ended` there."""
        self._thread = threading.Thread(
            target=self._follow, args=(ended,), name=f"list {self.socket.name}", daemon=True
        )
        self._thread.start()

    def allocate(self, ids: tuple[str, ...], timeout: float) -> api.AllocateResponse:
        """Call Allocate for one container."""
        request = api.AllocateRequest(
            container_requests=[api.ContainerAllocateRequest(devices_ids=ids)]
        )
        return self._timed("Allocate", request, api.AllocateResponse, timeout, lambda _: ids)

    def prefer(
        self, available: list[str], must_include: list[str], size: int, timeout: float
    ) -> tuple[str, ...]:
        """Call GetPreferredAllocation for one container and give the ids it answers."""
        request = api.PreferredAllocationRequest(
            container_requests=[
                api.ContainerPreferredAllocationRequest(
                    available_deviceIDs=available,
                    must_include_deviceIDs=must_include,
                    allocation_size=size,
                )
            ]
        )
        answer = api.PreferredAllocationResponse
        return _preferred(
            self._timed("GetPreferredAllocation", request, answer, timeout, _preferred)
        )

    def pre_start(self, ids: tuple[str, ...], timeout: float) -> None:
        """Call PreStartContainer."""
        request = api.PreStartContainerRequest(devices_ids=ids)
        answer = api.PreStartContainerResponse
        self._timed("PreStartContainer", request, answer, timeout, lambda _: ids)

    def send(self, method: str, payload: bytes, timeout: float) -> tuple[grpc.StatusCode, bytes]:
        """Send raw bytes to a unary method; give the status and the raw answer."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        call = self._channel.unary_unary(SERVICE + method)
        try:
            return grpc.StatusCode.OK, call(payload, timeout=timeout)
        except grpc.RpcError as error:
            return status_of(error)[0], b""

    def open_stream(self, payload: bytes = b"") -> ExtraStream:
        """Open one more ListAndWatch on this connection; what it sends changes nothing."""
        return ExtraStream(self._stream(payload))

    def close(self) -> None:
        """Close the connection: the plugin sees all its streams end."""
        self._channel.close()
        self.reading.set()

    def join(self, timeout: float) -> None:
        """Wait for the reading thread; TimeoutError when it does not end."""
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise TimeoutError(
                    f"the reader of {self.socket.name} did not end within {timeout} s"
                )

    def _stream(self, payload: bytes) -> Stream:
        call: grpc.UnaryStreamMultiCallable[bytes, bytes]
        call = self._channel.unary_stream(SERVICE + "ListAndWatch")
        return call(payload)

    def _follow(self, ended: Callable[[PluginClient], None]) -> None:
        try:
            for data in self._stream(b""):
                at = self._manager.clock()
                self._manager.listed(self._decoded(at, data))
                self.reading.wait()
        except (grpc.RpcError, ValueError, DecodeError):
            # The stream has ended, on either side (ValueError: the channel was closed before).
            pass
        finally:
            ended(self)

    def _decoded(self, at: float, data: bytes) -> DeviceList:
        message = api.ListAndWatchResponse.FromString(data)
        devices = {one.ID: ListedDevice(one.health, _numa(one)) for one in message.devices}
        return DeviceList(at, self.resource, self.socket.name, devices, len(data))

    def _timed(
        self,
        method: str,
        request: Message,
        answer: type[Answer],
        timeout: float,
        ids: Callable[[Answer], tuple[str, ...]],
    ) -> Answer:
        begin = self._manager.clock()

        def note(ids: tuple[str, ...], code: grpc.StatusCode, details: str) -> None:
            took = self._manager.clock() - begin
            self._manager.called(RpcCall(begin, took, method, self.resource, ids, code, details))

        try:
            response = self._call(method, request, answer, timeout)
        except PluginError as error:
            note((), error.code, error.details)
            raise
        note(ids(response), grpc.StatusCode.OK, "")
        return response

    def _call(
        self,
        method: str,
        request: Message,
        answer: type[Answer],
        timeout: float,
        *,
        dial: bool = False,
    ) -> Answer:
        # No deadline travels with the call, as with the kubelet; the time limit is the test's.
        call: grpc.UnaryUnaryMultiCallable[Message, Answer]
        call = self._channel.unary_unary(
            SERVICE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            future = call.future(request, wait_for_ready=dial)
        except ValueError as error:
            raise PluginError(grpc.StatusCode.UNAVAILABLE, str(error)) from error
        try:
            return future.result(timeout)
        except grpc.FutureTimeoutError as error:
            future.cancel()
            msg = f"{self.socket.name} did not answer {method} within {timeout} s"
            if dial:
                raise PluginError(grpc.StatusCode.DEADLINE_EXCEEDED, msg) from error
            raise PluginHung(msg) from error
        except grpc.FutureCancelledError as error:
            msg = f"the connection to {self.socket.name} was closed during {method}"
            raise PluginError(grpc.StatusCode.CANCELLED, msg) from error
        except grpc.RpcError as error:
            raise PluginError(*status_of(error)) from error


def _numa(device: api.Device) -> int | None:
    # Asked first: reading an absent message of 16 000 devices costs 10 ms.
    if not device.HasField("topology"):
        return None
    nodes = device.topology.nodes
    return nodes[0].ID if nodes else None


def _preferred(response: api.PreferredAllocationResponse) -> tuple[str, ...]:
    answers = response.container_responses
    return tuple(answers[0].deviceIDs) if answers else ()
