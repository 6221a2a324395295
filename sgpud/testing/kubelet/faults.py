"""Faults of the kubelet's registration, asked for by a test before they happen."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import grpc
from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Gate:
    """A place where the stand-in stops until the test lets it go on."""

    def __init__(self) -> None:
        """Make it shut."""
        self._reached = threading.Event()
        self._open = threading.Event()

    @property
    def reached(self) -> bool:
        """Whether somebody has come to it."""
        return self._reached.is_set()

    def reach(self) -> None:
        """Record an arrival, before `hold`."""
        self._reached.set()

    def hold(self) -> None:
        """Stop here until `release`."""
        self.reach()
        self._open.wait()

    def release(self) -> None:
        """Release everything that is held, now and later."""
        self._open.set()

    def wait_reached(self, timeout: float) -> None:
        """Wait until somebody is held; TimeoutError after `timeout` seconds."""
        if not self._reached.wait(timeout):
            raise TimeoutError(f"nothing arrived at the gate within {timeout} s")


@frozen
class Refusal:
    """An answer to Register that is an error."""

    code: grpc.StatusCode
    message: str


@define(eq=False)
class RegistrationFaults:
    """What goes wrong with the next Register calls. Each fault is used up by one call."""

    _before: deque[Refusal | Gate] = field(factory=deque, init=False)
    _after: deque[Gate] = field(factory=deque, init=False)
    _unfollowed: int = field(default=0, init=False)
    _gates: list[Gate] = field(factory=list, init=False)
    _live: bool = field(default=False, init=False)
    _lock: threading.Lock = field(factory=threading.Lock, init=False)

    def refuse(
        self,
        times: int = 1,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        message: str = "the stand-in kubelet is set to refuse",
    ) -> None:
        """Refuse the next `times` calls with this answer; the plugin is not dialled."""
        with self._lock:
            self._before.extend([Refusal(code, message)] * times)

    def wrong_version(self, times: int = 1) -> None:
        """Answer the next `times` calls as a kubelet that speaks another version only."""
        message = 'API version "v1beta1" is not supported by this kubelet, "v1beta2" is'
        self.refuse(times, grpc.StatusCode.UNKNOWN, message)

    def hang(self) -> Gate:
        """Hold the next call before its plugin is dialled."""
        return self._gated(self._before.append)

    def hang_answer(self) -> Gate:
        """Hold the next call's answer: the plugin is dialled and its stream opened already."""
        return self._gated(self._after.append)

    def never_follow(self, times: int = 1) -> None:
        """Accept the next `times` calls, but never open their ListAndWatch."""
        with self._lock:
            self._unfollowed += times

    def begin(self) -> None:
        """Let faults happen, with a kubelet's life."""
        with self._lock:
            self._live = True

    def end(self) -> None:
        """Release everything that is held, and hold nothing until `begin`."""
        with self._lock:
            self._live = False
            held = [gate for gate in self._gates if gate.reached]
            self._gates = [gate for gate in self._gates if not gate.reached]
        for gate in held:
            gate.release()

    def before(self) -> Refusal | None:
        """Run the next fault of a call that has arrived; give a refusal if there is one."""
        fault = self._next(self._before)
        if isinstance(fault, Gate):
            fault.hold()
            return None
        return fault

    def after(self) -> None:
        """Run the next fault of a call that is about to be answered."""
        gate = self._next(self._after)
        if gate is not None:
            gate.hold()

    def follows(self) -> bool:
        """Whether the plugin that registers now gets its ListAndWatch."""
        with self._lock:
            if not self._unfollowed:
                return True
            self._unfollowed -= 1
            return False

    def _next(self, faults: deque[T]) -> T | None:
        with self._lock:
            fault = faults.popleft() if self._live and faults else None
            if isinstance(fault, Gate):
                # Under the lock: `end` opens each gate that somebody has come to.
                fault.reach()
            return fault

    def _gated(self, place: Callable[[Gate], None]) -> Gate:
        gate = Gate()
        with self._lock:
            place(gate)
            self._gates.append(gate)
        return gate
