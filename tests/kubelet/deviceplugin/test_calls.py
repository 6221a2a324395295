"""Calls to the kubelet over real sockets, with answers good, garbled, late and none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from twisted.internet import reactor as installed  # noqa: TID251 - the calls come back to it
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.trial.unittest import TestCase

from sgpud.core.planning.holdings import NamedPod
from sgpud.kubelet.api import podresources_pb2 as api
from sgpud.kubelet.outgoing import call, why
from sgpud.kubelet.podresources import LIST, PodResourcesClient
from tests.core.values import ids
from tests.surroundings import WITHIN, descriptors, short_folder, without_privilege

reactor: Any = installed
Steps = Any
"""What inlineCallbacks takes."""
Answer = Callable[[bytes, grpc.ServicerContext], bytes]
SECONDS = 15.0


def listed(*containers: list[str]) -> bytes:
    """An answer of List: a pod with these ids in its containers."""
    pod = api.PodResources(name="pod", namespace="default")
    for held in containers:
        pod.containers.add(name="c").devices.add(resource_name="x/y", device_ids=held)
    return api.ListPodResourcesResponse(pod_resources=[pod]).SerializeToString()


def refuse(_: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.UNAVAILABLE, "not now:\n  later")


class CallTest(TestCase):
    timeout = 40

    def setUp(self) -> None:
        folder = short_folder()
        self.socket = folder.__enter__() / "kubelet.sock"
        self.addCleanup(folder.__exit__, None, None, None)
        self.over = threading.Event()
        self.answers = b""

    def serve(self, answer: Answer) -> None:
        """Answer every call of List like this."""
        workers = ThreadPoolExecutor(2)
        server = grpc.server(workers)
        handler: Any = grpc.unary_unary_rpc_method_handler(answer)
        service, method = LIST.strip("/").split("/")
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(service, {method: handler})]
        )
        assert server.add_insecure_port(f"unix:{self.socket}")
        server.start()

        def end() -> None:
            self.over.set()
            server.stop(None).wait(WITHIN)
            workers.shutdown()

        self.addCleanup(end)

    def call(self, seconds: float = SECONDS) -> Deferred[bytes]:
        return call(reactor, self.socket, LIST, b"asked", seconds)

    def hang(self, _: bytes, __: grpc.ServicerContext) -> bytes:
        self.over.wait(WITHIN)
        return b""

    @inlineCallbacks
    def test_the_answer_is_returned_unchanged(self) -> Steps:
        self.serve(lambda request, _: request + b" \xff\x00")
        assert (yield self.call()) == b"asked \xff\x00"

    @inlineCallbacks
    def test_a_refusal_is_reported_on_one_line(self) -> Steps:
        self.serve(refuse)
        error = yield self.assertFailure(self.call(), grpc.RpcError)
        assert why(error) == "UNAVAILABLE: not now: later"

    @inlineCallbacks
    def test_an_error_of_the_server_is_reported_on_one_line(self) -> Steps:
        self.serve(lambda request, _: request[99:99] + bytes(request[99]))
        error = yield self.assertFailure(self.call(), grpc.RpcError)
        assert why(error).startswith("UNKNOWN: ")
        assert "\n" not in why(error)

    @inlineCallbacks
    def test_a_missing_socket_is_reported_on_one_line(self) -> Steps:
        error = yield self.assertFailure(self.call(), grpc.RpcError)
        assert why(error).startswith("UNAVAILABLE: ")
        assert "\n" not in why(error)

    @inlineCallbacks
    def test_a_kubelet_that_hangs_fails_the_call_in_time(self) -> Steps:
        self.serve(self.hang)
        error = yield self.assertFailure(self.call(0.2), grpc.RpcError)
        assert why(error).startswith("DEADLINE_EXCEEDED: ")

    @inlineCallbacks
    def test_a_cancelled_call_ends_on_both_sides(self) -> Steps:
        begun: Deferred[None] = Deferred()
        ended: Deferred[None] = Deferred()

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            context.add_callback(lambda: reactor.callFromThread(ended.callback, None))
            reactor.callFromThread(begun.callback, None)
            self.over.wait(WITHIN)
            return request

        self.serve(answer)
        asked = self.call()
        yield begun
        asked.cancel()
        yield self.assertFailure(asked, CancelledError)
        yield ended

    @inlineCallbacks
    def test_a_hundred_calls_leave_no_descriptor_behind(self) -> Steps:
        self.serve(lambda request, _: request)
        yield self.call()
        before = descriptors()
        for _ in range(100):
            yield self.call()
        assert descriptors() <= before + 3

    # podresources. -------------------------------------------------------------------------------

    def held(self) -> Deferred[tuple[NamedPod, ...]]:
        return PodResourcesClient(self.socket, reactor).held()

    @inlineCallbacks
    def test_our_ids_are_found_in_every_container(self) -> Steps:
        self.serve(lambda _request, _: listed(["eth0", *ids(0, 1)], [*ids(0, 2, 3), ""]))
        assert (yield self.held()) == (NamedPod("default", "pod", frozenset(ids(0, 1, 2, 3))),)

    @inlineCallbacks
    def test_an_empty_answer_means_no_holders(self) -> Steps:
        self.serve(lambda _request, _: b"")
        assert (yield self.held()) == ()

    @inlineCallbacks
    def test_garbage_is_an_error(self) -> Steps:
        self.serve(lambda _request, _: self.answers)
        for garbage in (b"\x0a\xff\xff\xff", listed(ids(0, 1))[:-1]):
            self.answers = garbage
            error = yield self.assertFailure(self.held(), DecodeError)
            assert "\n" not in why(error)

    @inlineCallbacks
    def test_an_answer_larger_than_grpcs_default_limit_is_accepted(self) -> Steps:
        many = ids(0, *range(100_000))
        self.serve(lambda _request, _: listed(many))
        assert len(listed(many)) > 4 * 1024 * 1024
        (pod,) = yield self.held()
        assert len(pod.ids) == 100_000

    def test_podresources_is_available_if_there_is_a_socket(self) -> None:
        asks = PodResourcesClient(self.socket, reactor)
        assert not asks.reachable
        self.serve(lambda request, _: request)
        assert asks.reachable

    def test_a_regular_file_is_not_available(self) -> None:
        self.socket.touch()
        assert not PodResourcesClient(self.socket, reactor).reachable
        assert not PodResourcesClient(Path("/nonexistent/kubelet.sock"), reactor).reachable

    def test_a_forbidden_folder_is_not_available(self) -> None:
        asks = PodResourcesClient(self.socket, reactor)
        self.serve(lambda request, _: request)
        with without_privilege():
            assert not asks.reachable


def test_an_error_of_any_kind_is_one_line() -> None:
    assert why(ValueError("a\n  b\tc")) == "a b c"
    assert why(ValueError()) == "ValueError"
