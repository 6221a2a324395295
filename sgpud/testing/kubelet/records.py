"""What the stand-in kubelet hands out: records of what happened, containers, and its errors."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from attrs import define, frozen

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Mapping

    import grpc

    from sgpud.kubelet.api import deviceplugin_pb2 as api

HEALTHY = "Healthy"
"""The one health that the kubelet counts as allocatable."""

T = TypeVar("T")


class ListedDevice(NamedTuple):
    """One id of a device list."""

    health: str
    """As sent: "Healthy" or "Unhealthy"."""
    numa: int | None
    """The first NUMA node of its topology; None without one."""


@frozen
class Attempt:
    """One Register call, as it arrived; it may still be refused."""

    at: float
    """Monotonic seconds."""
    resource: str
    endpoint: str
    version: str


@frozen
class Registration:
    """One Register call that was accepted: dialled back, and its options known."""

    at: float
    """Monotonic seconds, after the options were answered."""
    resource: str
    endpoint: str
    preferred: bool
    """The plugin offers GetPreferredAllocation."""
    pre_start: bool
    """The plugin wants PreStartContainer."""


@frozen
class DeviceList:
    """One ListAndWatch message."""

    at: float
    """Monotonic seconds when it had arrived, before it was decoded."""
    resource: str
    endpoint: str
    devices: Mapping[str, ListedDevice]
    size: int
    """Bytes on the wire."""

    @property
    def healthy(self) -> frozenset[str]:
        """The ids that may be allocated."""
        return frozenset(i for i, listed in self.devices.items() if listed.health == HEALTHY)

    @property
    def unhealthy(self) -> frozenset[str]:
        """The ids that count as capacity only."""
        return frozenset(i for i, listed in self.devices.items() if listed.health != HEALTHY)


@frozen
class RpcCall:
    """One call that the kubelet made to a plugin while it admitted a container."""

    at: float
    """Monotonic seconds when it began."""
    seconds: float
    method: str
    """One of "GetPreferredAllocation", "Allocate" and "PreStartContainer"."""
    resource: str
    ids: tuple[str, ...]
    """The ids asked for, in the order sent; for GetPreferredAllocation, those answered."""
    code: grpc.StatusCode
    details: str


@frozen
class Container:
    """A container that was admitted, and what its plugins answered."""

    pod_uid: str
    namespace: str
    pod: str
    name: str
    init: bool
    ids: Mapping[str, tuple[str, ...]]
    """Resource name to the ids held."""
    responses: Mapping[str, api.ContainerAllocateResponse]
    """Resource name to the first container response of its Allocate."""

    @property
    def envs(self) -> dict[str, str]:
        """The environment variables; of two answers that set one, the first wins."""
        merged: dict[str, str] = {}
        for response in self.responses.values():
            for name, value in response.envs.items():
                merged.setdefault(name, value)
        return merged

    @property
    def mounts(self) -> list[api.Mount]:
        """The mounts of every answer."""
        return [mount for response in self.responses.values() for mount in response.mounts]

    @property
    def device_nodes(self) -> list[api.DeviceSpec]:
        """The device nodes of every answer."""
        return [node for response in self.responses.values() for node in response.devices]

    @property
    def cdi_names(self) -> list[str]:
        """The CDI device names of every answer."""
        return [cdi.name for response in self.responses.values() for cdi in response.cdi_devices]


class Pause(enum.Enum):
    """A point of an admission at which a test may run code of its own."""

    BEFORE_ALLOCATE = "ids are chosen, Allocate is not called yet"
    AFTER_ALLOCATE = "Allocate has returned, its answer is not looked at yet"
    BEFORE_CHECKPOINT = "the allocation is in memory, not in the checkpoint file yet"


class AdmissionError(Exception):
    """UnexpectedAdmissionError: the pod has failed for good."""

    def __init__(
        self, message: str, code: grpc.StatusCode | None = None, details: str = ""
    ) -> None:
        """Say why; `code` and `details` are the plugin's own words where it was the plugin."""
        super().__init__(f"UnexpectedAdmissionError: {message}")
        self.reason = "UnexpectedAdmissionError"
        self.message = message
        self.code = code
        self.details = details


class PreStartError(Exception):
    """PreStartContainer failed: the real kubelet tries again, the pod is not lost."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        """Keep the plugin's own words."""
        super().__init__(f"PreStartContainer failed: {code.name}: {details}")
        self.code = code
        self.details = details


class KubeletPanic(Exception):  # noqa: N818 - a panic is what it is called
    """The real kubelet would have crashed: chosen ids left the list while Allocate was running."""

    def __init__(self, resource: str, ids: tuple[str, ...]) -> None:
        """Name the ids that were chosen and are listed no more."""
        super().__init__(
            f"the real kubelet panics here: {', '.join(ids)} of {resource} left the list between"
            " the kubelet's choice and the end of Allocate"
        )
        self.resource = resource
        self.ids = ids


class KubeletRestarted(Exception):  # noqa: N818 - says what happened
    """The kubelet stopped during an admission: nothing is recorded, the pod may be readmitted."""


class PluginHung(TimeoutError):  # noqa: N818 - says what happened
    """A plugin did not answer a call that has no deadline: the real kubelet would hang here."""


@define(eq=False)
class History(Generic[T]):
    """A list that remembers its last items only, and how many there have been."""

    items: deque[T]
    count: int = 0
    """How many have been added since the beginning."""
    cursor: int = 0
    """How many the reader has seen."""

    def add(self, item: T) -> None:
        """Append; beyond the limit the oldest one is dropped."""
        self.items.append(item)
        self.count += 1

    def unread(self) -> T | None:
        """Give the oldest item that the reader has not seen; None when all are seen."""
        forgotten = self.count - len(self.items)
        self.cursor = max(self.cursor, forgotten)
        return self.items[self.cursor - forgotten] if self.cursor < self.count else None
