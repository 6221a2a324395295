"""What the stand-in kubelet knows, under one condition that every change notifies."""

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
    """The last list, whatever has become of its plugin."""
    plugin: PluginClient | None = None
    """The one connected last; None when it is gone."""
    gone_since: float | None = None
    """Monotonic seconds since when no plugin serves it; None while one does."""


@define(eq=False)
class Pod:
    """A pod as the API server knows it: the stand-in keeps it over its own restarts."""

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
    """The device manager's state. `changed` guards all of it; `notify` after every change."""

    clock: Callable[[], float]
    file: CheckpointFile
    keep: int
    """How many records of one kind are remembered."""
    grace: float
    """Seconds after which a resource without a plugin is forgotten."""
    changed: threading.Condition = field(
        init=False, factory=lambda: threading.Condition(threading.RLock())
    )
    life: int = field(init=False, default=0)
    """How many times the kubelet has stopped: an admission of an older life is not carried on."""
    resources: dict[str, Resource] = field(init=False, factory=dict)
    allocations: dict[Slot, PodDevices] = field(init=False, factory=dict)
    pods: dict[str, Pod] = field(init=False, factory=dict)
    panics: list[KubeletPanic] = field(init=False, factory=list)
    attempts: History[Attempt] = field(init=False)
    registrations: History[Registration] = field(init=False)
    lists: dict[str, History[DeviceList]] = field(init=False, factory=dict)
    calls: deque[RpcCall] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the logs."""
        self.attempts = History(deque(maxlen=self.keep))
        self.registrations = History(deque(maxlen=self.keep))
        self.calls = deque(maxlen=self.keep)

    def start(self) -> None:
        """Begin a life: read the checkpoint back; every resource in it is at zero until listed."""
        with self.changed:
            self.allocations, registered = self.file.read()
            now = self.clock()
            self.resources = {name: Resource(gone_since=now) for name in registered}
            self.changed.notify_all()

    def stop(self) -> None:
        """End a life."""
        with self.changed:
            self.life += 1
            self.changed.notify_all()

    def log_of(self, resource: str) -> History[DeviceList]:
        """Give the log of a resource's list messages; made on first use."""
        return self.lists.setdefault(resource, History(deque(maxlen=self.keep)))

    def attempted(self, attempt: Attempt) -> None:
        """Note a Register call."""
        with self.changed:
            self.attempts.add(attempt)
            self.changed.notify_all()

    def connected(self, plugin: PluginClient, registration: Registration) -> None:
        """Note a plugin that was dialled back: it serves its resource from now on."""
        with self.changed:
            resource = self.resources.setdefault(plugin.resource, Resource())
            resource.plugin = plugin
            resource.gone_since = None
            self.registrations.add(registration)
            self.changed.notify_all()

    def disconnected(self, name: str) -> None:
        """Note that a resource has no plugin any more: all its ids are unhealthy at once."""
        with self.changed:
            resource = self.resources.get(name)
            if resource is not None and resource.plugin is not None:
                resource.plugin = None
                resource.gone_since = self.clock()
                resource.unhealthy |= resource.healthy
                resource.healthy = set()
                self.changed.notify_all()

    def listed(self, message: DeviceList) -> None:
        """Note a list message: it replaces the whole list and the checkpoint is written."""
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
        """Note a call to a plugin."""
        with self.changed:
            self.calls.append(call)
            self.changed.notify_all()

    def write(self) -> None:
        """Write the checkpoint file; OSError when that cannot be done."""
        with self.changed:
            self.file.write(
                self.allocations, {name: one.healthy for name, one in self.resources.items()}
            )

    def free_finished(self) -> None:
        """Free what pods hold that are finished or unknown. The file is not written."""
        with self.changed:
            active = {uid for uid, pod in self.pods.items() if not pod.finished}
            self.allocations = {
                slot: one for slot, one in self.allocations.items() if slot.pod_uid in active
            }
            self.changed.notify_all()

    def forget_expired(self) -> None:
        """Drop each resource whose plugin has been gone for the grace time."""
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
        """Give the ids that containers hold."""
        with self.changed:
            return {
                i
                for slot, one in self.allocations.items()
                if slot.resource == resource
                for i in one.ids
            }
