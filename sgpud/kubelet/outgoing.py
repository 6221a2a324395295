"""Calls to the kubelet: one channel, one call, one Deferred."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import grpc
from twisted.internet.defer import Deferred

from sgpud.bridge import Reactor, deferred

T = TypeVar("T")

LARGEST = 64 * 1024 * 1024
"""Bytes of an answer: podresources also lists CPUs and the devices of other plugins."""


def channel_to(socket: Path) -> Any:
    """A channel of its own to a socket of the kubelet: close it."""
    return grpc.insecure_channel(
        f"unix:{socket}",
        options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.max_receive_message_length", LARGEST),
        ],
    )


def call(
    reactor: Reactor, socket: Path, method: str, request: bytes, timeout: float
) -> Deferred[bytes]:
    """Call a method at a socket of the kubelet; cancel the Deferred to end the call.

    The channel is the call's own: a shared one would wait with gRPC's back-off after a refusal.
    """
    channel = channel_to(socket)
    unary: Any = channel.unary_unary(method)
    answer: Deferred[bytes] = deferred(reactor, unary.future(request, timeout=timeout))

    def close(result: T) -> T:
        channel.close()
        return result

    return answer.addBoth(close)


def why(error: BaseException | None) -> str:
    """What the kubelet or gRPC said about a call that failed, in one line."""
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if isinstance(error, grpc.RpcError) and callable(code) and callable(details):
        text = f"{code().name}: {details()}"
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())
