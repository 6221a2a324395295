"""The state of the stand-in kubelet, under one condition that every change notifies."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING

from attrs import define, field

from sgpud.testing.kubelet.records import HEALTHY, History

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sgpud.testing.kubelet.checkpoint import CheckpointFile, PodDevices, Slot
    from sgpud.testing.kubelet.plugins import PluginClient
    from sgpud.testing.kubelet.records import (
        Attempt,
        DeviceList,
        KubeletPanic,
        ListedDevice,
        Registration,
        RpcCall,
    )


@define(eq=False)
class Resource:
    """One extended resource: what was listed, and which plugin serves it."""

    healthy: set[str] = field(factory=set)
    unhealthy: set[str] = field(factory=set)
    listed: dict[str, ListedDevice] = field(factory=dict)
    """The last list, also after its plugin has gone."""
    plugin: PluginClient | None = None
    """The one that connected last; None once it has gone."""
    gone_since: float | None = None
    """Monotonic seconds since when no plugin serves it; None while one does."""


@define(eq=False)
class Pod:
    """A pod as the API server knows it; it survives restarts of the stand-in."""

    uid: str
    namespace: str
    name: str
    wants: dict[str, Mapping[str, int]] = field(factory=dict)
    """Container name to resource name to count."""
    init: set[str] = field(factory=set)
    """The names of its ordinary init containers."""
    running: set[str] = field(factory=set)
    finished: bool = False


@define(eq=False)
class DeviceManager:
    """The device manager's state. `changed` guards all of it; notify it after every change."""

    clock: Callable[[], float]
    file: CheckpointFile
    keep: int
    """Records of one kind that are kept."""
    grace: float
    """Seconds after which a resource without a plugin is forgotten."""
    changed: threading.Condition = field(
        init=False, factory=lambda: threading.Condition(threading.RLock())
    )
    life: int = field(init=False, default=0)
    """How many times the kubelet has stopped: admissions end with the life they began in."""
    resources: dict[str, Resource] = field(init=False, factory=dict)
    allocations: dict[Slot, PodDevices] = field(init=False, factory=dict)
    pods: dict[str, Pod] = field(init=False, factory=dict)
    panics: list[KubeletPanic] = field(init=False, factory=list)
    attempts: History[Attempt] = field(init=False)
    registrations: History[Registration] = field(init=False)
    lists: dict[str, History[DeviceList]] = field(init=False, factory=dict)
    calls: deque[RpcCall] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Create the histories."""
        self.attempts = History(deque(maxlen=self.keep))
        self.registrations = History(deque(maxlen=self.keep))
        self.calls = deque(maxlen=self.keep)

    def start(self) -> None:
        """Start: read the checkpoint; every resource in it has no devices until listed."""
        with self.changed:
            self.allocations, registered = self.file.read()
            now = self.clock()
            self.resources = {name: Resource(gone_since=now) for name in registered}
            self.changed.notify_all()

    def stop(self) -> None:
        """Stop."""
        with self.changed:
            self.life += 1
            self.changed.notify_all()

    def log_of(self, resource: str) -> History[DeviceList]:
        """The history of a resource's list messages, created on first use."""
        return self.lists.setdefault(resource, History(deque(maxlen=self.keep)))

    def attempted(self, attempt: Attempt) -> None:
        """Record a Register call."""
        with self.changed:
            self.attempts.add(attempt)
            self.changed.notify_all()

    def connected(self, plugin: PluginClient, registration: Registration) -> None:
        """Record a plugin that was dialled: it serves its resource from now on."""
        with self.changed:
            resource = self.resources.setdefault(plugin.resource, Resource())
            resource.plugin = plugin
            resource.gone_since = None
            self.registrations.add(registration)
            self.changed.notify_all()

    def disconnected(self, name: str) -> None:
        """Record that a resource's plugin has gone: all its ids become unhealthy at once."""
        with self.changed:
            resource = self.resources.get(name)
            if resource is not None and resource.plugin is not None:
                resource.plugin = None
                resource.gone_since = self.clock()
                resource.unhealthy |= resource.healthy
                resource.healthy = set()
                self.changed.notify_all()

    def listed(self, message: DeviceList) -> None:
        """Record a list message: it replaces the whole list, and the checkpoint is written."""
        with self.changed:
            resource = self.resources.setdefault(message.resource, Resource())
            resource.listed = dict(message.devices)
            resource.healthy = {i for i, one in message.devices.items() if one.health == HEALTHY}
            resource.unhealthy = message.devices.keys() - resource.healthy
            # The kubelet logs an error and goes on; the directory may have been removed.
            with contextlib.suppress(OSError):
                self.write()
            self.log_of(message.resource).add(message)
            self.changed.notify_all()

    def called(self, call: RpcCall) -> None:
        """Record a call to a plugin."""
        with self.changed:
            self.calls.append(call)
            self.changed.notify_all()

    def write(self) -> None:
        """Write the checkpoint file; OSError."""
        with self.changed:
            self.file.write(
                self.allocations, {name: one.healthy for name, one in self.resources.items()}
            )

    def free_finished(self) -> None:
        """Free what finished and unknown pods hold. The file is not written."""
        with self.changed:
            active = {uid for uid, pod in self.pods.items() if not pod.finished}
            self.allocations = {
                slot: one for slot, one in self.allocations.items() if slot.pod_uid in active
            }
            self.changed.notify_all()

    def forget_expired(self) -> None:
        """Drop each resource whose plugin has been gone for the grace period."""
        with self.changed:
            limit = self.clock() - self.grace
            expired = [
                name
                for name, one in self.resources.items()
                if one.gone_since is not None and one.gone_since <= limit
            ]
            for name in expired:
                del self.resources[name]
            if expired:
                with contextlib.suppress(OSError):
                    self.write()
                self.changed.notify_all()

    def in_use(self, resource: str) -> set[str]:
        """The ids that containers hold."""
        with self.changed:
            return {
                i
                for slot, one in self.allocations.items()
                if slot.resource == resource
                for i in one.ids
            }
