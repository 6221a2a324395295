"""The DRA driver as a whole: one socket in plugins_registry, as long as the node is ours.

Registration, claims and health are services of the same socket: its file appears when all of them
are served, and its removal is what unregisters the driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import grpc
from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import FolderWatches, Reactor, Timer, in_thread
from sgpud.core.registration.events import RegistrationPhase, RegistrationState
from sgpud.kubelet.deviceplugin.endpoint import EndpointError, clear_stale, listen, socket_name
from sgpud.kubelet.dra.servicer import DraServicer, HealthReport
from sgpud.kubelet.dra.store import ClaimStore

REGISTRY = "plugins_registry"
"""Beside the folder of device plugins, below the kubelet's --root-dir."""
WORKERS = 24
"""Health streams, and claims that are prepared at a time; more calls queue."""
FINISH_WITHIN = 0.5
"""Seconds for calls in flight when the driver stops; the kubelet repeats one that is cut."""
HEARTBEAT = 10.0
"""Seconds between two reports of the health; the kubelet wants one in 30."""
GUARD_EVERY = 30.0
"""Seconds between looks at the CDI specs without a hint."""
FIRST_GUARD = 2.0
"""Seconds until the first one, when the GPUs are known."""
TRY_AGAIN = 5.0
"""Seconds until a socket that could not be served is tried again."""


class SliceControl(Protocol):
    """What publishes the slice."""

    def enable(self) -> None:
        """The kubelet knows the driver."""


@frozen
class DraObserver:
    """What is told of the driver, on the reactor but for the last."""

    loaded: Callable[[], None]
    """The claims that earlier runs prepared are known."""
    changed: Callable[[], None]
    """Something that people see has changed."""
    compare: Callable[[], None]
    """In a thread, now and then: compare the claims with the kubelet's record."""


class DraFront:
    """Keeps the driver registered with the kubelet."""

    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        kubelet: Path,
        nonce: str,
        driver: str,
        servicer: DraServicer,
        store: ClaimStore,
        watcher: Callable[[Callable[[], None]], FolderWatches],
        observer: DraObserver,
    ) -> None:
        """`kubelet`: its root directory; `nonce`: part of the socket's name."""
        self._reactor = reactor
        self._registry = kubelet / REGISTRY
        self._nonce = nonce
        self._driver = driver
        self._servicer = servicer
        self._store = store
        self._observer = observer
        self._watcher = watcher(self._hinted)
        self._slices: SliceControl | None = None
        self._server: grpc.Server | None = None
        self._socket: Path | None = None
        self._generation = 0
        self._active = False
        self._wanted: frozenset[str] = frozenset()
        self._state = RegistrationState()
        self._again, self._heart, self._guards = (Timer(reactor) for _ in range(3))
        self._guarding = self._watched = False
        self.registered = 0
        """Registrations that the kubelet reported as successful."""
        self.report = HealthReport("")
        """The health of the devices, for heartbeats."""

    def publishes_with(self, slices: SliceControl) -> None:
        """Enable this once the kubelet knows the driver."""
        self._slices = slices

    @property
    def registrations(self) -> Mapping[str, RegistrationState]:
        """Where the registration stands, by pool: it is the same for all."""
        return dict.fromkeys(self._wanted, self._state)

    @property
    def state(self) -> RegistrationState:
        """Where the registration stands."""
        return self._state

    def update(self, resources: Iterable[str]) -> None:
        """The pools there are now."""
        self._wanted = frozenset(resources)

    # Serving. ------------------------------------------------------------------------------------

    def clear_stale(self) -> list[str]:
        """Remove the sockets of earlier runs; their names."""
        try:
            self._registry.mkdir(mode=0o750, exist_ok=True)
            return clear_stale(self._registry)
        except OSError as problem:
            self._log.warn(
                "Cannot clear {folder}: {problem}", folder=str(self._registry), problem=problem
            )
            return []

    def activate(self) -> None:
        """The node is ours: restore the claims, then serve and register."""
        self._active = True
        self._set(RegistrationState(RegistrationPhase.SERVING))
        in_thread(self._reactor, self._store.load).addBoth(self._loaded)

    def deactivate(self) -> Deferred[None]:
        """Unregister and end every call; slices and CDI specs stay. Fires when that is done."""
        self._active = self._watched = False
        self._watcher.close()
        for timer in (self._again, self._heart, self._guards):
            timer.cancel()
        self._set(RegistrationState(RegistrationPhase.STOPPED))
        return self._end()

    def kubelet_seen(self) -> None:
        """There is a new kubelet.sock: the kubelet finds the driver's socket by itself."""
        if self._state.phase is RegistrationPhase.ABSENT:
            self._set(evolve(self._state, phase=RegistrationPhase.REGISTERING))

    def kubelet_gone(self) -> None:
        """There is no kubelet.sock."""
        if self._active and self._server is not None:
            self._set(RegistrationState(RegistrationPhase.ABSENT, self._generation))

    def notified(self, problem: str) -> None:
        """The kubelet has registered the driver, or says why not."""
        if not self._active:
            return
        if problem:
            self._log.error(
                "The kubelet does not register {driver}: {problem}. It needs Kubernetes 1.36",
                driver=self._driver,
                problem=problem,
            )
            self._set(evolve(self._state, phase=RegistrationPhase.REGISTERING, problem=problem))
            return
        self.registered += 1
        self._log.info("Registered {driver} with the kubelet", driver=self._driver)
        self._set(RegistrationState(RegistrationPhase.LIVE, self._generation, streams=1))
        if self._slices is not None:
            self._slices.enable()

    def claims_changed(self) -> None:
        """Claims were prepared or unprepared: there may be a first CDI spec to guard."""
        if self._active:
            self._watch_specs()

    def reports(self, report: HealthReport) -> None:
        """The health of the devices now."""
        if report.devices != self.report.devices or report.pool != self.report.pool:
            self.report = report
            self._servicer.health.publish(report, lambda _: True)

    def _loaded(self, result: object) -> None:
        if isinstance(result, Failure):
            self._log.failure("Restoring the prepared claims failed", result)
        if not self._active:
            return
        self._observer.loaded()
        self._serve()
        self._heart.set(HEARTBEAT, self._beat)
        self._guards.set(FIRST_GUARD, self._guard_again)
        self._watch_specs()

    def _serve(self) -> None:
        """Listen; tried again where that fails."""
        self._generation += 1
        path = self._registry / socket_name(self._driver, self._nonce, self._generation)
        self._servicer.open()
        try:
            self._registry.mkdir(mode=0o750, exist_ok=True)
            server = listen(path, self._servicer.handlers(), WORKERS, "dra")
        except (EndpointError, OSError) as error:
            problem = error.problem if isinstance(error, EndpointError) else str(error)
            self._log.error("Cannot listen on {path}: {problem}", path=str(path), problem=problem)
            self._set(evolve(self._state, phase=RegistrationPhase.WAITING, problem=problem))
            self._again.set(TRY_AGAIN, self._serve)
            return
        self._server, self._socket = server, path
        self._set(RegistrationState(RegistrationPhase.REGISTERING, self._generation))

    def _end(self) -> Deferred[None]:
        server, self._server = self._server, None
        socket, self._socket = self._socket, None
        self._servicer.close()
        if server is None:
            return succeed(None)
        if socket is not None:
            # The kubelet unregisters the driver when it sees this, and calls it no more.
            socket.unlink(missing_ok=True)
        ending = server

        def wait() -> None:
            ending.stop(FINISH_WITHIN).wait()

        return in_thread(self._reactor, wait)

    def _set(self, state: RegistrationState) -> None:
        if state != self._state:
            self._state = state
            self._observer.changed()

    # Heartbeats and CDI specs. -------------------------------------------------------------------

    def _beat(self) -> None:
        self._servicer.health.publish(self.report, lambda _: True)
        self._servicer.end_late()
        self._heart.set(HEARTBEAT, self._beat)
        if self._socket is not None and not self._socket.exists():
            self._log.warn("{path} was removed; serving again", path=str(self._socket))
            self._end().addBoth(lambda _: self._serve() if self._active else None)

    def _watch_specs(self) -> None:
        if self._store.folder.is_dir():
            self._watcher.watch([self._store.folder])
            if not self._watched:
                # A spec may have been lost just before.
                self._watched = True
                self._hinted()
        else:
            self._watched = False

    def _hinted(self) -> None:
        if self._active and not self._guarding:
            self._guard()

    def _guard_again(self) -> None:
        self._watch_specs()
        if not self._guarding:
            self._guard(compare=True)
        self._guards.set(GUARD_EVERY, self._guard_again)

    def _guard(self, *, compare: bool = False) -> None:
        self._guarding = True

        def look() -> None:
            self._store.guard()
            if compare:
                self._observer.compare()

        def done(result: object) -> None:
            self._guarding = False
            if isinstance(result, Failure):
                self._log.failure("Checking the CDI specs failed", result)

        in_thread(self._reactor, look).addBoth(done)
