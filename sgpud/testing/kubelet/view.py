"""What a test sees of the stand-in kubelet, and waits for. It never polls."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from sgpud.testing.kubelet.device_manager import DeviceManager
    from sgpud.testing.kubelet.plugins import PluginClient
    from sgpud.testing.kubelet.records import (
        Attempt,
        DeviceList,
        History,
        KubeletPanic,
        ListedDevice,
        Registration,
        RpcCall,
    )

T = TypeVar("T")


class KubeletView:
    """The state queries and waiting methods of the stand-in kubelet.

    Every waiting method has a time limit in seconds and raises TimeoutError, with the state there
    is, when it passes. Each call of a next_ method gives the next record that no call has given
    yet, so that nothing is missed between two calls.
    """

    def __init__(self, manager: DeviceManager) -> None:
        self._manager = manager

    @property
    def panics(self) -> list[KubeletPanic]:
        """Each time the real kubelet would have crashed."""
        with self._manager.changed:
            return list(self._manager.panics)

    def assert_no_panics(self) -> None:
        """Raise the first KubeletPanic there has been."""
        for panic in self.panics:
            raise panic

    @property
    def attempts(self) -> list[Attempt]:
        """The Register calls so far, refused ones too."""
        with self._manager.changed:
            return list(self._manager.attempts.items)

    @property
    def registrations(self) -> list[Registration]:
        """The accepted registrations so far."""
        with self._manager.changed:
            return list(self._manager.registrations.items)

    @property
    def calls(self) -> list[RpcCall]:
        """The calls made to plugins by admissions."""
        with self._manager.changed:
            return list(self._manager.calls)

    def lists(self, resource: str) -> list[DeviceList]:
        """Give every list message of a resource."""
        with self._manager.changed:
            return list(self._manager.log_of(resource).items)

    def capacity(self, resource: str) -> int:
        """Give the number of ids, healthy or not; 0 when unknown or expired."""
        with self._manager.changed:
            self._manager.forget_expired()
            known = self._manager.resources.get(resource)
            return len(known.healthy) + len(known.unhealthy) if known else 0

    def allocatable(self, resource: str) -> int:
        """Give the number of healthy ids, held or not."""
        with self._manager.changed:
            known = self._manager.resources.get(resource)
            return len(known.healthy) if known else 0

    def devices(self, resource: str) -> dict[str, ListedDevice]:
        """Give the ids of the last list with (health as sent, NUMA node or None)."""
        with self._manager.changed:
            known = self._manager.resources.get(resource)
            return dict(known.listed) if known else {}

    def in_use(self, resource: str) -> set[str]:
        """Give the ids that containers hold, as far as the kubelet has noticed their ends."""
        return self._manager.in_use(resource)

    def registered(self, resource: str) -> bool:
        """Whether a plugin is connected for a resource."""
        with self._manager.changed:
            known = self._manager.resources.get(resource)
            return known is not None and known.plugin is not None

    def plugin(self, resource: str) -> PluginClient:
        """Give the connection to a resource's plugin; LookupError without one."""
        with self._manager.changed:
            known = self._manager.resources.get(resource)
            if known is None or known.plugin is None:
                raise LookupError(resource)
            return known.plugin

    def next_attempt(self, timeout: float) -> Attempt:
        """Give the next Register call, refused or not, waiting for it."""
        return self._next(lambda: self._manager.attempts, "Register call", timeout)

    def next_registration(self, timeout: float) -> Registration:
        """Give the next accepted registration, waiting for it."""
        return self._next(lambda: self._manager.registrations, "registration", timeout)

    def next_devices(self, resource: str, timeout: float) -> DeviceList:
        """Give the next list message of a resource, waiting for it."""
        return self._next(lambda: self._manager.log_of(resource), f"list of {resource}", timeout)

    def skip(self) -> None:
        """Let the next_ methods give only what comes after this moment."""
        with self._manager.changed:
            for log in (self._manager.attempts, self._manager.registrations):
                log.cursor = log.count
            for lists in self._manager.lists.values():
                lists.cursor = lists.count

    def wait_for(self, predicate: Callable[[Self], T], timeout: float) -> T:
        """Give the predicate's first true value; it is called now and after every change.

        It is called with the device manager locked: it must not call the kubelet.
        """
        with self._manager.changed:
            value = self._manager.changed.wait_for(lambda: predicate(self), timeout)
            if not value:
                raise TimeoutError(f"not so within {timeout} s; {self._summary()}")
            return value

    def _next(self, log: Callable[[], History[T]], what: str, timeout: float) -> T:
        with self._manager.changed:
            item = self._manager.changed.wait_for(lambda: log().unread(), timeout)
            if item is None:
                raise TimeoutError(f"no {what} within {timeout} s; {self._summary()}")
            log().cursor += 1
            return item

    def _summary(self) -> str:
        resources = [
            f"{name} has {len(one.healthy)} healthy and {len(one.unhealthy)} unhealthy ids and"
            f" {'a' if one.plugin else 'no'} plugin"
            for name, one in self._manager.resources.items()
        ]
        counts = (
            f"{self._manager.attempts.count} Register calls,"
            f" {self._manager.registrations.count} registrations so far"
        )
        return "; ".join([counts, *resources])
