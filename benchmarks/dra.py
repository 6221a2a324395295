"""The driver of DRA beside a stand-in kubelet and API server: claims, the slice, memory."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from benchmarks.machine import memory, processor_seconds
from benchmarks.node import RESOURCE, WITHIN, Node, Process
from benchmarks.report import NotMeasuredError, Number, Target, median, percentile
from benchmarks.resources import SETTLE, stub_library
from sgpud.core.dra.allocator import DeviceRequest
from sgpud.core.dra.claims import MEMORY, SHARES, AllocatedClaim, AllocatedShare, PreparedClaim
from sgpud.core.dra.objects import SliceOwner, difference, same_but_for_order, slice_document
from sgpud.core.dra.slices import Device, DraSettings, devices
from sgpud.core.gpu.gpu import Gpu, Mig
from sgpud.core.planning.node import Node as Facts
from sgpud.core.sharing.rules import Placement, ShareTerms, Sharing
from sgpud.kubelet.api import dra_pb2 as api
from sgpud.testing.api_server import ApiServer
from sgpud.testing.dra_kubelet import PLUGIN, DraKubelet

if TYPE_CHECKING:
    from typing_extensions import Self

GIB = 2**30
GPUS, SHARES_EACH = 8, 100
PREPARED_WITHIN, ABOVE_GET = 50.0, 10.0
"""Milliseconds of a NodePrepareResources, and of one without its own GET of the claim."""
TAINTED_WITHIN = 300.0
"""Milliseconds from an XID until the API server has the slice with the taint."""
PUBLISHED_WITHIN = 50.0
"""Milliseconds of processor time for the slice of a node with 56 MIG instances and 500 claims."""
GROWS, LARGER = 2.0, 4.0
"""MiB of RSS: after many cycles of claims, and beside the device plugin."""
XID = 79
ONE = DeviceRequest("container-0-request-0")


def dra(*, quick: bool) -> Iterator[Number]:
    """Claims, the slice and memory, with [kubelet] api = "dra"."""
    yield from _published(20 if quick else 60)
    with _DraNode(GPUS, SHARES_EACH) as node:
        daemon = node.serve()
        threading.Event().wait(SETTLE)
        idle = memory(daemon.pid).rss
        yield from _claims(node, 60 if quick else 300)
        yield from _cycles(node, daemon, 200 if quick else 1000)
    with Node(GPUS, SHARES_EACH) as plain:
        plugin = plain.sgpud()
        plain.registered(RESOURCE, plugin.began)
        threading.Event().wait(SETTLE)
        target = Target(memory(plugin.pid).rss + LARGER, f"device plugin + {LARGER:g} MiB")
        yield Number('DRA: RSS idle (floor: "device-plugin")', "MiB", idle, memory(plugin.pid).rss,
                     target=target)  # fmt: skip
    yield from _tainted(4 if quick else 7)


class _DraNode(Node):
    """A node whose daemon is a driver of DRA."""

    def __init__(self, gpus: int, shares: int) -> None:
        super().__init__(gpus, shares)
        self.api = ApiServer()
        self.driver = DraKubelet(self.folder, self.api.delete_all, alone=False)

    def __enter__(self) -> Self:
        super().__enter__()
        self.api.start()
        self.driver.start()
        access = self.api.write_kubeconfig(self.folder / "kubeconfig")
        self.configure(
            self.shares,
            f'[kubelet]\napi = "dra"\n[dra]\nkubeconfig = "{access}"\n'
            f'node_name = "{self.api.node}"\ncdi_dir = "{self.folder / "cdi"}"\n',
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        self.driver.stop()
        self.api.stop()

    def serve(self, environment: dict[str, str] | None = None) -> Process:
        """Start the daemon; returns when its slice is published."""
        daemon = self.sgpud() if environment is None else self.sgpud_on_nvml(environment)
        if not self.api.wait(lambda: bool(self.api.slices), WITHIN):
            raise NotMeasuredError("the slice is not published")
        return daemon

    def caller(self) -> Callable[[str, dict[str, Any]], bytes]:
        """Calls the driver as the kubelet does, on one connection."""
        channel = grpc.insecure_channel(f"unix:{self.driver.drivers['gpu.deepomatic.com'].socket}")

        def call(method: str, claim: dict[str, Any]) -> bytes:
            metadata = claim["metadata"]
            names = {key: metadata[key] for key in ("namespace", "uid", "name")}
            asked = api.NodePrepareResourcesRequest(claims=[api.Claim(**names)])
            unary: Any = channel.unary_unary(f"{PLUGIN}/{method}")
            answer: bytes = unary(asked.SerializeToString(), timeout=WITHIN)
            return answer

        return call


def _claims(node: _DraNode, count: int) -> Iterator[Number]:
    """NodePrepareResources of one claim after the other, beside a GET of each."""
    call, prepared, read = node.caller(), [], []
    for number in range(count):
        claim = node.api.schedule(f"pod-{number}", ONE, limits=True)
        if claim is None:
            raise NotMeasuredError("no room for a claim")
        read.append(_get(node.api, claim))
        began = time.perf_counter()
        answer = api.NodePrepareResourcesResponse.FromString(call("NodePrepareResources", claim))
        prepared.append((time.perf_counter() - began) * 1000)
        if answer.claims[claim["metadata"]["uid"]].error:
            raise NotMeasuredError(answer.claims[claim["metadata"]["uid"]].error)
    for claim in list(node.api.claims.values()):
        call("NodeUnprepareResources", claim)
        node.api.delete_claim(claim["metadata"]["name"])
    name = "DRA: NodePrepareResources"
    yield Number(f"{name}, p50 (floor: its GET)", "ms", median(prepared), median(read))
    target = Target(PREPARED_WITHIN, f"{PREPARED_WITHIN:g} ms")
    p99, floor = percentile(prepared, 0.99), percentile(read, 0.99)
    yield Number(f"{name}, p99 (floor: its GET)", "ms", p99, floor, target=target)
    above = Target(ABOVE_GET, f"{ABOVE_GET:g} ms")
    yield Number(f"{name}, p99 above its GET's", "ms", p99 - floor, target=above)


def _get(server: ApiServer, claim: dict[str, Any]) -> float:
    """Milliseconds that a GET of a claim takes."""
    metadata = claim["metadata"]
    path = f"/apis/resource.k8s.io/v1/namespaces/{metadata['namespace']}/resourceclaims"
    began = time.perf_counter()
    connection = HTTPConnection("127.0.0.1", server.port, timeout=WITHIN)
    headers = {"Authorization": f"Bearer {server.token}"}
    connection.request("GET", f"{path}/{metadata['name']}", headers=headers)
    json.loads(connection.getresponse().read())
    connection.close()
    return (time.perf_counter() - began) * 1000


def _cycles(node: _DraNode, daemon: Process, count: int) -> Iterator[Number]:
    """Claims that are prepared and unprepared, again and again: what is left of them."""
    call = node.caller()
    before, descriptors = 0.0, 0
    used = processor_seconds(daemon.pid)
    for number in range(count + count // 5):
        if number == count // 5:
            before, descriptors = memory(daemon.pid).rss, _descriptors(daemon.pid)
        claim = node.api.schedule(f"cycle-{number}", ONE, limits=True)
        if claim is None:
            raise NotMeasuredError("no room for a claim")
        call("NodePrepareResources", claim)
        call("NodeUnprepareResources", claim)
        node.api.delete_claim(f"cycle-{number}")
    grown = memory(daemon.pid).rss - before
    target = Target(GROWS, f"{GROWS:g} MiB")
    yield Number(f"DRA: RSS after {count} cycles of a claim", "MiB", max(0.0, grown), target=target)
    used = (processor_seconds(daemon.pid) - used) / (count + count // 5) * 1000
    yield Number("DRA: processor time of a cycle", "ms", used)
    left = len(list((node.folder / "cdi").glob("*"))) + len(
        list((node.folder / "state" / "claims").glob("*"))
    )
    left += max(0, _descriptors(daemon.pid) - descriptors)
    none = Target(0, "none")
    yield Number("DRA: files and descriptors left of them", "", left, target=none)


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - their names only


def _tainted(gpus: int) -> Iterator[Number]:
    """XIDs, one GPU after the other, to the slice with the taint at the API server."""
    took = []
    with _DraNode(gpus + 1, SHARES_EACH) as node:
        node.serve(stub_library(node))
        script = node.folder / "script"
        # By then the probe listens to the GPUs' events, and a write is not too soon.
        threading.Event().wait(2 * SETTLE)
        for gpu in range(gpus):
            new = script.with_suffix(".new")
            new.write_text(f"{script.read_text()}event 1 {gpu} 8 {XID} -1 -1\n")
            began = time.monotonic()
            new.replace(script)
            if not _wait_for_sick(node.api, gpu + 1):
                raise NotMeasuredError("no taint in the slice")
            took.append((time.monotonic() - began) * 1000)
            threading.Event().wait(SETTLE)
    target = Target(TAINTED_WITHIN, f"{TAINTED_WITHIN:g} ms")
    yield Number(f"DRA: XID to the slice, worst of {gpus}", "ms", max(took), target=target)


def _wait_for_sick(server: ApiServer, count: int) -> bool:
    return server.wait(lambda: _sick(server) == count, WITHIN)


def _sick(server: ApiServer) -> int:
    (found,) = server.slices.values()
    return sum(bool(each.get("taints")) for each in found["spec"]["devices"])


def _published(rounds: int) -> Iterator[Number]:
    """Processor time from the facts to the body of a PUT, with a slice that changes each time."""
    gpus = tuple(
        Gpu(
            f"MIG-{gpu:04x}{part:04x}-0000-4000-8000-000000000000", gpu, "NVIDIA A100-SXM4-80GB",
            10 * GIB, mig=Mig(f"GPU-{gpu:08x}-0000-4000-8000-000000000000", part, 0), fake=True,
        )
        for gpu in range(8)
        for part in range(7)
    )  # fmt: skip
    facts = Facts(Sharing(default=ShareTerms(RESOURCE, 16)), gpus)
    settings = DraSettings(placement=Placement.PACKED)
    published = devices(facts, settings)
    owner, took = SliceOwner("gpu.deepomatic.com", "node-1", "uid"), []
    claims = [_claim(published, number) for number in range(500)]
    before = slice_document(owner, published)["spec"]
    for turn in range(rounds):
        began = time.process_time()
        found = devices(facts, settings, claims[turn:])
        spec = slice_document(owner, found)["spec"]
        if not difference(spec, before) and not same_but_for_order(spec, before):
            raise NotMeasuredError("the slice is another one")
        json.dumps(spec)
        took.append((time.process_time() - began) * 1000)
        before = spec
    target = Target(PUBLISHED_WITHIN, f"{PUBLISHED_WITHIN:g} ms")
    name = "DRA: a slice of 56 MIG with 500 claims, p99"
    yield Number(name, "ms", percentile(took, 0.99), target=target)


def _claim(published: tuple[Device, ...], number: int) -> PreparedClaim:
    device = published[(number * 7) % len(published)]
    amounts = {MEMORY: 256 * 2**20, SHARES: 1}
    share = AllocatedShare("gpu", "node-1", device.name, f"share-{number}", amounts)
    claim = AllocatedClaim(f"uid-{number}", "default", f"pod-{number}", (share,))
    return PreparedClaim(claim, {device.name: device.uuid}, number)
