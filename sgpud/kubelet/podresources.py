"""The kubelet's podresources service: who holds what, by name, and without finished pods."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import grpc
from twisted.internet.defer import Deferred

from sgpud.bridge import Reactor, in_thread
from sgpud.core.errors import SgpudError
from sgpud.core.planning.holdings import NamedPod
from sgpud.core.sharing.share_id import parse_share_id
from sgpud.kubelet.api import podresources_pb2 as api
from sgpud.kubelet.outgoing import call, channel_to, why

LIST = "/v1.PodResourcesLister/List"
ALLOCATABLE = "/v1.PodResourcesLister/GetAllocatableResources"
WITHIN = 5.0
"""Seconds for an answer from a kubelet on the same machine."""


class PodResourcesError(SgpudError):
    """The kubelet could not be asked."""

    def __init__(self, problem: str) -> None:
        """`problem`: what it or gRPC said."""
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        """The problem."""
        return f"the kubelet cannot be asked: {self.problem}"


def list_now(socket: Path, within: float = WITHIN) -> tuple[NamedPod, ...]:
    """The pods that hold ids of ours; PodResourcesError. Blocks: before there is a reactor."""
    request = api.ListPodResourcesRequest().SerializeToString()
    with channel_to(socket) as channel:
        try:
            return _named(channel.unary_unary(LIST)(request, timeout=within))
        except grpc.RpcError as error:
            raise PodResourcesError(why(error)) from error


class PodResourcesClient:
    """Asks the kubelet's podresources socket."""

    def __init__(self, socket: Path, reactor: Reactor) -> None:
        """Nothing is connected until it is asked."""
        self._socket = socket
        self._reactor = reactor

    @property
    def reachable(self) -> bool:
        """Whether there is a socket to ask at."""
        try:
            return self._socket.is_socket()
        except OSError:
            return False  # its folder may not be entered

    def held(self) -> Deferred[tuple[NamedPod, ...]]:
        """The pods that hold ids of ours, without ordinary init containers.

        Asking also makes the kubelet free what finished pods held.
        """
        request = api.ListPodResourcesRequest().SerializeToString()
        answer = call(self._reactor, self._socket, LIST, request, WITHIN)
        return answer.addCallback(_named)

    def allocatable(self, resources: Collection[str]) -> Deferred[Mapping[str, frozenset[str]]]:
        """The ids of these resources that the kubelet counts as allocatable, whoever listed them.

        Read in a thread: a node has up to 63 000.
        """
        request = api.AllocatableResourcesRequest().SerializeToString()
        answer = call(self._reactor, self._socket, ALLOCATABLE, request, WITHIN)
        return answer.addCallback(
            lambda found: in_thread(self._reactor, lambda: _allocatable(found, resources))
        )


def _allocatable(answer: bytes, resources: Collection[str]) -> Mapping[str, frozenset[str]]:
    response = api.AllocatableResourcesResponse.FromString(answer)
    found: dict[str, list[str]] = {}
    for devices in response.devices:
        name = devices.resource_name
        if name in resources:
            found.setdefault(name, []).extend(devices.device_ids)
    return {resource: frozenset(ids) for resource, ids in found.items()}


def _named(answer: bytes) -> tuple[NamedPod, ...]:
    response = api.ListPodResourcesResponse.FromString(answer)
    found = []
    for pod in response.pod_resources:
        ids = frozenset(
            item
            for container in pod.containers
            for devices in container.devices
            for item in devices.device_ids
            if parse_share_id(item)
        )
        if ids:
            found.append(NamedPod(pod.namespace, pod.name, ids))
    return tuple(found)
