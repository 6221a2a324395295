"""A server's calls: each brings one request, and one that brings none holds no worker."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from attrs import frozen

from sgpud.kubelet.incoming import IncomingCalls
from tests.kubelet.half_open import HALF, NOTHING, HalfOpenCall, end_all
from tests.surroundings import WITHIN, short_folder

WORKERS = 2


@frozen
class Served:
    """A server with two methods and few workers, and a connection to it."""

    calls: IncomingCalls
    address: str
    channel: grpc.Channel

    def echo(self, request: bytes) -> bytes:
        unary: Any = self.channel.unary_unary("/test/Echo")
        answer: bytes = unary(request, timeout=WITHIN)
        return answer

    def twice(self, request: bytes) -> list[bytes]:
        stream: Any = self.channel.unary_stream("/test/Twice")
        return list(stream(request, timeout=WITHIN))


@pytest.fixture
def served() -> Iterator[Served]:
    calls = IncomingCalls()
    methods = {
        "Echo": calls.unary(lambda request, _: request),
        "Twice": calls.stream(lambda request, _: iter([request, request])),
    }
    workers = ThreadPoolExecutor(WORKERS)
    server = grpc.server(workers)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test", methods)])
    with short_folder() as folder:
        address = f"unix:{folder / 'a.sock'}"
        assert server.add_insecure_port(address)
        server.start()
        with grpc.insecure_channel(address) as channel:
            yield Served(calls, address, channel)
        assert server.stop(1).wait(WITHIN)
        workers.shutdown()


def test_a_request_is_answered(served: Served) -> None:
    assert served.echo(b"hello") == b"hello"
    assert served.echo(b"") == b""
    assert served.twice(b"hello") == [b"hello", b"hello"]


@pytest.mark.parametrize("sent", [NOTHING, HALF], ids=["nothing", "half"])
@pytest.mark.parametrize("method", ["/test/Echo", "/test/Twice"])
def test_calls_without_a_request_are_ended(served: Served, method: str, sent: bytes) -> None:
    with ExitStack() as stack:
        calls = [
            stack.enter_context(HalfOpenCall(served.address, method, sent))
            for _ in range(3 * WORKERS)
        ]
        end_all(calls, served.calls.end_late)
        assert served.echo(b"hello") == b"hello"


def test_a_call_that_was_answered_is_not_looked_at(served: Served) -> None:
    assert served.echo(b"one") == b"one"
    for _ in range(10):
        served.calls.end_late()
    assert served.echo(b"two") == b"two"


def test_a_call_that_ends_without_a_request_is_refused(served: Served) -> None:
    method: Any = served.channel.stream_unary("/test/Echo")
    with pytest.raises(grpc.RpcError) as refused:
        method(iter(()), timeout=WITHIN)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
