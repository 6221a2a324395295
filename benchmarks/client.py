"""The caller: a process of its own that calls two plugins in turn and takes the time of each.

It sends and receives bytes, so that what it costs is small and the same for both.
"""

import gc
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import cycle, islice

import grpc
from attrs import frozen

from benchmarks.report import NotMeasuredError
from sgpud.kubelet.api import deviceplugin_pb2 as api

WARM = 20
"""Calls that are made before the first one counts."""


@frozen
class Side:
    """One plugin that is called."""

    socket: str
    requests: Sequence[bytes]
    """Sent one after the other, again and again."""


@frozen
class Job:
    """What to call, and how often."""

    method: str
    sides: Mapping[str, Side]
    calls: int
    """To each side, in all rounds together."""
    rounds: int = 5
    """How often the sides take turns."""
    callers: int = 1


def processes() -> ProcessPoolExecutor:
    """Where to submit `call` with a job."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def call(job: Job) -> dict[str, list[float]]:
    """The milliseconds of every call, by side."""
    gc.disable()
    took: dict[str, list[float]] = {name: [] for name in job.sides}
    callers = {name: _Caller(job.method, side, job.callers) for name, side in job.sides.items()}
    try:
        for caller in callers.values():
            caller.run(max(WARM, job.callers))
        for _ in range(job.rounds):
            for name, caller in callers.items():
                took[name] += caller.run(job.calls // job.rounds)
    except grpc.RpcError as error:
        raise NotMeasuredError(f"{job.method}: {error.code().name}: {error.details()}") from None
    finally:
        for caller in callers.values():
            caller.close()
        gc.enable()
    return took


class _Caller:
    def __init__(self, method: str, side: Side, callers: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(f"unix:{side.socket}", options=options)
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        self._call = self._channel.unary_unary(f"/v1beta1.DevicePlugin/{method}")
        self._requests = cycle(side.requests)
        self._callers = callers
        self._pool = ThreadPoolExecutor(callers)

    def run(self, calls: int) -> list[float]:
        requests = list(islice(self._requests, calls))
        if self._callers == 1:
            return self._in_turn(requests)
        parts = [requests[start :: self._callers] for start in range(self._callers)]
        return [took for part in self._pool.map(self._in_turn, parts) for took in part]

    def close(self) -> None:
        self._pool.shutdown()
        self._channel.close()

    def _in_turn(self, requests: Sequence[bytes]) -> list[float]:
        took = []
        for request in requests:
            began = time.perf_counter()
            self._call(request, timeout=30)
            took.append((time.perf_counter() - began) * 1000)
        return took


def allocates(ids: Sequence[str]) -> list[bytes]:
    """Allocate requests, for one share each."""
    return [
        api.AllocateRequest(
            container_requests=[api.ContainerAllocateRequest(devices_ids=[share])]
        ).SerializeToString()
        for share in ids
    ]


def prefers(ids: Sequence[str], size: int) -> list[bytes]:
    """A GetPreferredAllocation request for `size` out of all shares."""
    request = api.PreferredAllocationRequest()
    request.container_requests.add(available_deviceIDs=ids, allocation_size=size)
    return [request.SerializeToString()]
