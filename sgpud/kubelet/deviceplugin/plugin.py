"""The device plugin as a whole: a registrar per pool, as long as the directory is ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults

from sgpud.bridge import Reactor, Timer
from sgpud.core.allocation.allocate import RefusedError
from sgpud.core.registration.events import (
    AllocatableRead,
    KubeletAppeared,
    KubeletVanished,
    RegistrationState,
    StreamsChanged,
)
from sgpud.kubelet.deviceplugin.allocatable import Allocatable, AllocatableMonitor, ListedIds
from sgpud.kubelet.deviceplugin.endpoint import Endpoint, clear_stale, socket_name
from sgpud.kubelet.deviceplugin.publisher import SnapshotPublisher
from sgpud.kubelet.deviceplugin.registrar import Registrar
from sgpud.kubelet.deviceplugin.servicer import BeforeStart, DevicePluginServicer
from sgpud.kubelet.directory import KUBELET_SOCKET

LOOK_EVERY = 1.0
"""Seconds between two looks at streams that are not read."""


class CallObserver(Protocol):
    """Observes the kubelet's calls, on the reactor."""

    def refused(self, resource: str, refusal: RefusedError) -> None:
        """Shares were refused."""

    def listed(self, resource: str) -> None:
        """A list message was sent."""

    def allocatable(self, numbers: Mapping[str, int]) -> None:
        """The numbers of memory shares that the kubelet's books and the lists agree on."""

    @property
    def prompt(self) -> bool:
        """Whether it is to be told of a change at once."""


@frozen
class _ReactorCalls:
    """Forwards a servicer's events from its workers to the reactor."""

    reactor: Reactor
    registrar: Registrar
    generation: int
    observer: CallObserver
    hint: Callable[[], None]
    """Have the allocatable ids read soon."""

    def streams(self, live: int) -> None:
        self.reactor.callFromThread(self.registrar.handle, StreamsChanged(self.generation, live))

    def refused(self, resource: str, refusal: RefusedError) -> None:
        self.reactor.callFromThread(self.observer.refused, resource, refusal)

    def listed(self, resource: str) -> None:
        self.reactor.callFromThread(self._listed, resource)

    def _listed(self, resource: str) -> None:
        self.observer.listed(resource)
        if self.observer.prompt:
            self.hint()


class DevicePlugin:
    """Keeps every pool of the latest plan registered."""

    def __init__(
        self,
        reactor: Reactor,
        publisher: SnapshotPublisher,
        directory: Path,
        nonce: str,
        observer: CallObserver,
        changed: Callable[[], None],
        ask: Callable[[Collection[str]], Deferred[Allocatable]],
        before_start: BeforeStart | None = None,
    ) -> None:
        """`nonce` is part of every socket's name; `changed` is called after every transition.

        `ask` asks the kubelet which ids of these resources are allocatable. `before_start`: called
        before a container starts, for the pools that are to be asked.
        """
        self._before_start = before_start
        self._reactor = reactor
        self._publisher = publisher
        self._directory = directory
        self._nonce = nonce
        self._observer = observer
        self._changed = changed
        self._active = False
        self._present = False
        self._wanted: frozenset[str] = frozenset()
        self._registrars: dict[str, Registrar] = {}
        self._allocatable = AllocatableMonitor(reactor, ask, self)
        self._looking = Timer(reactor)
        self._generations = 0
        self._registered = 0

    @property
    def registrations(self) -> Mapping[str, RegistrationState]:
        """Where each pool's registration stands."""
        return {resource: registrar.state for resource, registrar in self._registrars.items()}

    @property
    def registered(self) -> int:
        """Register calls that the kubelet answered, of all pools there ever were."""
        return self._registered + sum(each.registrations for each in self._registrars.values())

    def update(self, resources: Iterable[str]) -> None:
        """The pools there are now. New ones are registered, those that went are retired."""
        self._wanted = frozenset(resources)
        self._settle()
        for resource, registrar in tuple(self._registrars.items()):
            registrar.offers(prefers=self._prefers(resource), asks=self._asks(resource))

    def clear_stale(self) -> list[str]:
        """Remove the sockets that an earlier run left in the directory; their names."""
        return clear_stale(self._directory)

    def activate(self) -> None:
        """The directory is ours: serve and register in it."""
        self._active = True
        self._settle()
        self._allocatable.start()
        self._looking.set(LOOK_EVERY, self._look)

    def deactivate(self) -> Deferred[None]:
        """The directory is no longer ours: retire everything; fires when that is done."""
        self._active = False
        self._present = False
        self._allocatable.stop()
        self._looking.cancel()
        stopping = [registrar.stop() for registrar in tuple(self._registrars.values())]
        return gatherResults(stopping).addCallback(lambda _: None)

    def kubelet_seen(self) -> None:
        """There is a new kubelet.sock."""
        self._present = True
        for registrar in tuple(self._registrars.values()):
            registrar.handle(KubeletAppeared())

    def kubelet_gone(self) -> None:
        """There is no kubelet.sock."""
        self._present = False
        for registrar in tuple(self._registrars.values()):
            registrar.handle(KubeletVanished())

    def checkpoint_changed(self) -> None:
        """The kubelet's checkpoint may have changed."""
        self._allocatable.hint()

    def plugin_seen(self) -> None:
        """Another plugin's socket appeared in the directory."""
        self._allocatable.watch_closely()

    def listed(self, resource: str) -> ListedIds:
        """What a pool lists now."""
        snapshot = self._publisher.snapshot
        served = snapshot.pools.get(resource) if snapshot else None
        if served is None:
            return ListedIds()
        return ListedIds(
            served.index.places, sum(len(group.healthy) for group in served.pool.lists)
        )

    def allocatable_read(self, resource: str, event: AllocatableRead) -> None:
        """The allocatable ids of a pool were read."""
        registrar = self._registrars.get(resource)
        if registrar is not None:
            registrar.handle(event)

    def books_read(self, numbers: Mapping[str, int]) -> bool:
        """The pools of which the kubelet's books show what is listed."""
        snapshot = self._publisher.snapshot
        pools = snapshot.pools if snapshot else {}
        memory = {
            name: number
            for name, number in numbers.items()
            if name in pools and pools[name].pool.memory
        }
        self._observer.allocatable(memory)
        return self._observer.prompt

    def _look(self) -> None:
        self._looking.set(LOOK_EVERY, self._look)
        for registrar in self._registrars.values():
            registrar.end_unread()

    def _prefers(self, resource: str) -> bool:
        """Whether it matters which ids the kubelet chooses.

        Not of memory shares: they are bound to a GPU when they are granted.
        """
        snapshot = self._publisher.snapshot
        served = snapshot.pools.get(resource) if snapshot else None
        return served is None or not served.pool.memory

    def _settle(self) -> None:
        """Have a registrar for each pool that is wanted, and stop the others."""
        wanted = self._wanted if self._active else frozenset()
        for resource in sorted(wanted - self._registrars.keys()):
            self._start(resource)
        for resource in self._registrars.keys() - wanted:
            # One that stops at once settles again, and takes the others along.
            if resource in self._registrars:
                self._registrars[resource].stop()

    def _asks(self, resource: str) -> bool:
        """Whether the kubelet is to ask before it starts a container."""
        snapshot = self._publisher.snapshot
        served = snapshot.pools.get(resource) if snapshot else None
        return (
            self._before_start is not None and served is not None and served.pool.asked_before_start
        )

    def _start(self, resource: str) -> None:
        registrar = Registrar(
            resource,
            self._reactor,
            lambda generation: self._endpoint(resource, generation),
            self._directory / KUBELET_SOCKET,
            self._changed,
        )
        self._registrars[resource] = registrar

        def stopped(_: object) -> None:
            # A pool that came back meanwhile gets a registrar of its own, after the old one's end.
            self._registered += registrar.registrations
            del self._registrars[resource]
            self._settle()
            self._changed()

        registrar.stopped.addCallback(stopped)
        if self._present:
            registrar.handle(KubeletAppeared())

    def _endpoint(self, resource: str, generation: int) -> Endpoint:
        self._generations += 1
        name = socket_name(resource, self._nonce, self._generations)
        registrar = self._registrars[resource]
        observer = _ReactorCalls(
            self._reactor, registrar, generation, self._observer, self._allocatable.hint
        )
        servicer = DevicePluginServicer(
            resource,
            self._publisher,
            observer,
            time.time,
            prefers=self._prefers(resource),
            before_start=self._before_start if self._asks(resource) else None,
        )
        return Endpoint(self._directory / name, servicer, self._reactor)
