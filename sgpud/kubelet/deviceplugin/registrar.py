"""Carries out the registration machine's actions for a pool: endpoints, Register calls, timers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Reactor, Timer
from sgpud.core.registration.events import (
    CallRegister,
    Effect,
    EndpointFailed,
    EndpointRetired,
    EndpointServed,
    Event,
    HoldLists,
    OptionsChanged,
    RegisterAnswered,
    RegisterRefused,
    RegistrationPhase,
    RegistrationState,
    RetireEndpoint,
    ServeEndpoint,
    StartTimer,
    StopRequested,
    TimerExpired,
)
from sgpud.core.registration.machine import step
from sgpud.kubelet.api import deviceplugin_pb2 as api
from sgpud.kubelet.deviceplugin.endpoint import EndpointError
from sgpud.kubelet.outgoing import call, why

REGISTER = "/v1beta1.Registration/Register"
VERSION = "v1beta1"
REGISTER_WITHIN = 15.0
"""Seconds for Register: before it answers, the kubelet dials back for up to 10 s and asks for the
options."""
_SERVED = (RegistrationPhase.LIVE, RegistrationPhase.SUPERSEDED)

Call = Callable[[Reactor, Path, str, bytes, float], Deferred[bytes]]
"""Calls a method at a socket: reactor, socket, method, request, seconds."""


class Listens(Protocol):
    """An endpoint."""

    path: Path

    @property
    def prefers(self) -> bool:
        """Whether it offers GetPreferredAllocation."""

    @property
    def asks(self) -> bool:
        """Whether it wants PreStartContainer."""

    def start(self) -> None:
        """Listen, or raise EndpointError."""

    def stop(self) -> Deferred[None]:
        """Be gone."""

    def hold(self) -> None:
        """Send no more lists."""

    def end_unread(self) -> None:
        """End the streams whose client does not read; called once a second."""


class Registrar:
    """Keeps one pool registered until it is stopped."""

    _log = Logger()

    def __init__(
        self,
        resource: str,
        reactor: Reactor,
        make: Callable[[int], Listens],
        kubelet_socket: Path,
        changed: Callable[[], None],
        call: Call = call,
    ) -> None:
        """`make` makes the endpoint of a generation; `changed` is called after every transition.

        `call` calls a method at the kubelet's socket.
        """
        self.resource = resource
        self.state = RegistrationState()
        self.registrations = 0
        """Register calls that were answered."""
        self.stopped: Deferred[None] = Deferred()
        """Fires when everything is retired."""
        self._reactor = reactor
        self._make = make
        self._kubelet_socket = kubelet_socket
        self._changed = changed
        self._ask = call
        self._endpoint: Listens | None = None
        self._warned = ""
        """The problem that the log has already: every try that fails alike is no news."""
        self._timer = Timer(reactor)
        self._call: Deferred[bytes] | None = None

    def handle(self, event: Event) -> None:
        """Take an event in. On the reactor only."""
        before = self.state
        self.state, effects = step(before, event)
        if self.state.phase is not before.phase:
            self._timer.cancel()
            self._say(before)
        for effect in effects:
            self._do(effect)
        if self.state.phase is RegistrationPhase.STOPPED and not self.stopped.called:
            self.stopped.callback(None)
        self._changed()

    def stop(self) -> Deferred[None]:
        """Retire; fires when that is done."""
        self.handle(StopRequested())
        return self.stopped

    def offers(self, *, prefers: bool, asks: bool = False) -> None:
        """What the pool offers and wants now; registers again if the kubelet was told otherwise."""
        endpoint = self._endpoint
        if endpoint is not None and (endpoint.prefers, endpoint.asks) != (prefers, asks):
            self.handle(OptionsChanged(self.state.generation))

    def end_unread(self) -> None:
        """End the streams whose client does not read. To be called once a second."""
        if self._endpoint is not None:
            self._endpoint.end_unread()

    def _say(self, before: RegistrationState) -> None:
        state = self.state
        fields = {"resource": self.resource, "generation": state.generation}
        if state.phase is RegistrationPhase.LIVE:
            self._warned = ""
            self._log.info("{resource}: registered with the kubelet, its stream is live", **fields)
        elif state.phase is RegistrationPhase.SUPERSEDED:
            self._warned = state.problem
            self._log.error(
                "{resource}: {problem}. Pods get no share until that plugin is gone: remove it from"
                " this node. sgpud registers again when it has ended",
                problem=state.problem,
                **fields,
            )
        elif state.phase is RegistrationPhase.RETIRING and not state.problem:
            self._log.info("{resource}: its options have changed; registering again", **fields)
        elif state.phase is RegistrationPhase.RETIRING and before.phase in _SERVED:
            self._warned = state.problem
            self._log.warn(
                "{resource}: {problem}; registering again", problem=state.problem, **fields
            )
        elif state.problem != self._warned:
            self._warned = state.problem
            self._log.warn(
                "{resource}: not registered: {problem} (try {attempt})",
                problem=state.problem,
                attempt=state.attempt,
                **fields,
            )
        else:
            self._log.debug("{resource}: {phase}", phase=state.phase.value, **fields)

    def _do(self, effect: Effect) -> None:
        if isinstance(effect, StartTimer):
            expired = TimerExpired(effect.generation)
            self._timer.set(effect.seconds, partial(self.handle, expired))
        elif isinstance(effect, ServeEndpoint):
            self._serve(effect.generation)
        elif isinstance(effect, CallRegister):
            self._register(effect.generation)
        elif isinstance(effect, HoldLists):
            if self._endpoint is not None:
                self._endpoint.hold()
        elif isinstance(effect, RetireEndpoint):
            self._retire(effect.generation)

    def _serve(self, generation: int) -> None:
        endpoint = self._make(generation)
        try:
            endpoint.start()
        except EndpointError as problem:
            self.handle(EndpointFailed(generation, str(problem)))
            return
        self._endpoint = endpoint
        self.handle(EndpointServed(generation))

    def _register(self, generation: int) -> None:
        if self._endpoint is None:
            return
        request = api.RegisterRequest(
            version=VERSION,
            endpoint=self._endpoint.path.name,
            resource_name=self.resource,
            options=api.DevicePluginOptions(
                pre_start_required=self._endpoint.asks,
                get_preferred_allocation_available=self._endpoint.prefers,
            ),
        )
        self._call = self._ask(
            self._reactor,
            self._kubelet_socket,
            REGISTER,
            request.SerializeToString(),
            REGISTER_WITHIN,
        )

        def answered(result: bytes | Failure) -> None:
            if not isinstance(result, Failure):
                self.registrations += 1
                self.handle(RegisterAnswered(generation))
            elif not isinstance(result.value, CancelledError):
                self.handle(RegisterRefused(generation, f"Register: {why(result.value)}"))

        self._call.addBoth(answered)

    def _retire(self, generation: int) -> None:
        endpoint, self._endpoint = self._endpoint, None
        calling, self._call = self._call, None
        if calling is not None and not calling.called:
            calling.cancel()
        if endpoint is None:
            self.handle(EndpointRetired(generation))
            return

        def gone(result: object) -> None:
            if isinstance(result, Failure):
                self._log.failure("An endpoint did not stop cleanly", failure=result)
            self.handle(EndpointRetired(generation))

        endpoint.stop().addBoth(gone)
