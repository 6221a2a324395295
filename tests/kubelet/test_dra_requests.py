"""What the DRA driver makes of requests that no kubelet sends."""

from collections.abc import Iterator
from typing import Any, cast

import grpc
import pytest
from attrs import define, field

from sgpud.kubelet.deviceplugin.endpoint import listen
from sgpud.kubelet.dra.front import WORKERS
from sgpud.kubelet.dra.servicer import (
    CLAIMS,
    HEALTH,
    REGISTRATION,
    SERVICE,
    STATUS_FIELDS,
    STREAMS,
    Claims,
    DeviceHealth,
    DraServicer,
    HealthReport,
)
from sgpud.kubelet.dra.store import ClaimStore
from tests.surroundings import WITHIN, short_folder

EMPTY_CLAIM = b"\x0a\x00"


@define
class Told:
    refusals: list[str] = field(factory=list)

    def registered(self, problem: str) -> None:
        self.refusals.append(problem)

    def prepared(self, seconds: float) -> None:
        raise AssertionError(seconds)

    def refused(self, claim: str, reason: str, problem: str) -> None:  # noqa: ARG002 - the seam's
        self.refusals.append(reason)


@define
class Driver:
    told: Told
    servicer: DraServicer
    channel: grpc.Channel

    def ask(self, method: str, request: bytes) -> bytes:
        unary: Any = self.channel.unary_unary(method)
        answer: bytes = unary(request, timeout=WITHIN)
        return answer


@pytest.fixture
def driver() -> Iterator[Driver]:
    told = Told()
    # Whatever is refused by its shape reads no claim, and stores none.
    store, claims = cast("ClaimStore", None), cast("Claims", None)
    servicer = DraServicer("gpu.example.com", store, claims, told, lambda: 0.0, lambda _: None)
    with short_folder() as folder:
        server = listen(folder / "a.sock", servicer.handlers(), WORKERS, "dra")
        with grpc.insecure_channel(f"unix:{folder / 'a.sock'}") as channel:
            yield Driver(told, servicer, channel)
        servicer.close()
        assert server.stop(1).wait(WITHIN)


@pytest.mark.parametrize(
    ("method", "most"),
    [
        (f"/{SERVICE}/NodePrepareResources", CLAIMS),
        (f"/{SERVICE}/NodeUnprepareResources", CLAIMS),
        (f"/{REGISTRATION}/NotifyRegistrationStatus", STATUS_FIELDS),
    ],
)
def test_more_fields_than_a_kubelet_sends_are_refused_unread(
    driver: Driver, method: str, most: int
) -> None:
    """Millions of empty claims fit into a message: gigabytes as objects, each refused by itself."""
    for count in (most + 1, 1_000_000):
        with pytest.raises(grpc.RpcError) as refused:
            driver.ask(method, EMPTY_CLAIM * count)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert driver.told.refusals == []


def test_a_health_stream_beyond_the_limit_is_refused(driver: Driver) -> None:
    """The first ones are the kubelet's: whoever comes after them must not end them."""
    watch: Any = driver.channel.unary_stream(f"/{HEALTH}/NodeWatchResources")
    streams = [watch(b"", timeout=WITHIN) for _ in range(STREAMS)]
    for stream in streams:
        assert next(stream) == b""
    late = watch(b"", timeout=WITHIN)
    with pytest.raises(grpc.RpcError) as refused:
        next(late)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    driver.servicer.health.publish(
        HealthReport("node", (DeviceHealth("gpu-0", healthy=True),)), lambda _: True
    )
    for stream in streams:
        assert b"gpu-0" in next(stream)
        stream.cancel()


def test_as_many_claims_as_are_allowed_are_each_answered(driver: Driver) -> None:
    driver.ask(f"/{SERVICE}/NodePrepareResources", EMPTY_CLAIM * CLAIMS)
    assert driver.told.refusals == ["invalid"] * CLAIMS
