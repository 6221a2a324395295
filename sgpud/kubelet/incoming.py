"""Calls from the kubelet: each brings one request, and is ended if that does not come.

gRPC gives a call one of its workers as soon as it begins, before its request is there. A client
that sends none, or half of one, would hold the worker for ever, and a few of them all there are. So
every method takes a stream of requests, which is the same on the wire, and reads one of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Lock

import grpc

LATE_LOOKS = 2
"""Looks, a second apart, at a call whose request is not there, until it is ended. A client sends
both at once; looks are counted, not seconds, since this process may have been stopped meanwhile."""


class IncomingCalls:
    """Makes the handlers of a server's methods, and ends the calls that bring no request."""

    def __init__(self) -> None:
        """No call waits."""
        self._lock = Lock()
        self._waiting: dict[grpc.ServicerContext, int] = {}
        """Looks at each call that waits for its request."""

    def unary(
        self, answer: Callable[[bytes, grpc.ServicerContext], bytes]
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The handler of a method with one answer."""

        def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            return answer(self._request(requests, context), context)

        return grpc.stream_unary_rpc_method_handler(handle)

    def stream(
        self, answers: Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """The handler of a method with a stream of answers."""

        def handle(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            yield from answers(self._request(requests, context), context)

        return grpc.stream_stream_rpc_method_handler(handle)

    def end_late(self) -> None:
        """End the calls whose request has not come. To be called once a second."""
        with self._lock:
            self._waiting = {context: looks + 1 for context, looks in self._waiting.items()}
            late = [context for context, looks in self._waiting.items() if looks >= LATE_LOOKS]
        for context in late:
            context.cancel()

    def _request(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """The request; gRPC's own error where the call ends before."""
        with self._lock:
            self._waiting[context] = 0
        try:
            request = next(requests, None)
        finally:
            with self._lock:
                self._waiting.pop(context, None)
        if request is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "sgpud: a call without a request")
            raise AssertionError  # abort has raised
        return request
