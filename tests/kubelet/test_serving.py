"""Serving the plugin directory: taking it, handing it over, and the states that people see."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed  # noqa: TID251 - it runs what is tested
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from sgpud.core.allocation.allocate import RefusedError
from sgpud.core.registration.events import RegistrationPhase
from sgpud.folder_watcher import FolderWatcher
from sgpud.kubelet.deviceplugin.endpoint import socket_name
from sgpud.kubelet.deviceplugin.plugin import DevicePlugin
from sgpud.kubelet.deviceplugin.publisher import SnapshotPublisher
from sgpud.kubelet.serving import Serving, ServingObserver
from sgpud.testing.kubelet.stand_in import StandInKubelet
from tests.core.values import POOL, gpu, node, planned, sharing
from tests.surroundings import WITHIN, listening, short_folder

reactor: Any = installed
Steps = Any
"""What inlineCallbacks takes."""


class Deaf:
    """Hears nothing of refusals."""

    def refused(self, resource: str, refusal: RefusedError) -> None:
        pass

    def listed(self, resource: str) -> None:
        pass

    def allocatable(self, numbers: Mapping[str, int]) -> None:
        pass

    @property
    def prompt(self) -> bool:
        return False


class Busy:
    """The reactor, with a pool of threads in which nothing runs before `free`."""

    def __init__(self) -> None:
        self._pool = ThreadPool(0, 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def getThreadPool(self) -> ThreadPool:
        return self._pool

    def free(self) -> Deferred[None]:
        self._pool.start()
        return deferToThread(self._pool.stop)


class Instance:
    """One sgpud's serving, and what it tells."""

    def __init__(self, path: Path, nonce: str, on: Any) -> None:
        self.calls: list[str] = []
        self.reasons: list[str] = []
        self.found_at_taking: list[str] = []
        self._awaited: list[tuple[Any, Deferred[None]]] = []
        publisher = SnapshotPublisher()
        assert publisher.put(planned(node(sharing(4), [gpu(0, fake=True)])))

        def acquired() -> None:
            self.calls.append("acquired")
            self.found_at_taking = [each.name for each in path.glob("sgpud-*")]

        listener = ServingObserver(
            on_served=lambda: None,
            on_acquired=acquired,
            on_standby=lambda: self.calls.append("standby"),
            on_checkpoint=lambda: None,
            on_kubelet=lambda: None,
            on_change=self.changed,
            on_fatal=self.reasons.append,
        )
        self.plugin = plugin = DevicePlugin(
            on, publisher, path, nonce, Deaf(), self.changed, lambda _: Deferred()
        )
        self.serving = Serving(
            on, plugin, path, nonce, lambda hint: FolderWatcher(reactor, hint), listener
        )
        self.plugin.update([POOL])

    def changed(self) -> None:
        for entry in tuple(self._awaited):
            condition, fires = entry
            if condition():
                self._awaited.remove(entry)
                reactor.callLater(0, fires.callback, None)

    def when(self, condition: Any) -> Deferred[None]:
        """Fires once this is so."""
        fires: Deferred[None] = Deferred()
        self._awaited.append((condition, fires))
        self.changed()
        return fires.addTimeout(WITHIN, reactor)

    def live(self) -> Deferred[None]:
        return self.when(
            lambda: (
                {name: state.phase for name, state in self.plugin.registrations.items()}
                == {POOL: RegistrationPhase.LIVE}
            )
        )

    @property
    def state(self) -> str:
        return self.serving.state


class ServingTest(TestCase):
    timeout = 60

    @inlineCallbacks
    def setUp(self) -> Steps:  # type: ignore[override]  # trial waits for a Deferred here too
        folder = short_folder()
        self.path = folder.__enter__() / "plugins"
        self.addCleanup(folder.__exit__, None, None, None)
        self.kubelet = StandInKubelet(self.path)
        yield deferToThread(self.kubelet.start)
        self.addCleanup(deferToThread, self.kubelet.stop)

    def instance(
        self, nonce: str = "0123", path: Path | None = None, on: Any = reactor
    ) -> Instance:
        made = Instance(path or self.path, nonce, on)
        self.addCleanup(self.end, made)
        made.serving.start()
        return made

    @inlineCallbacks
    def end(self, instance: Instance) -> Steps:
        yield instance.serving.stop()
        instance.serving.release()

    @inlineCallbacks
    def test_the_directory_is_locked_and_the_pool_registered_by_itself(self) -> Steps:
        one = self.instance()
        assert one.calls == ["acquired"]
        assert one.state == "serving"
        assert one.serving.ready(informed=False)
        yield one.live()
        yield one.when(lambda: one.plugin.registered == 1)

    @inlineCallbacks
    def test_a_kubelet_that_starts_later_or_restarts_is_noticed(self) -> Steps:
        yield deferToThread(self.kubelet.stop)
        one = self.instance()
        assert one.plugin.registrations[POOL].phase is RegistrationPhase.ABSENT
        for times in (1, 2):
            yield deferToThread(self.kubelet.restart)
            yield one.when(lambda times=times: one.plugin.registered == times)
            yield one.live()

    @inlineCallbacks
    def test_leftover_sockets_are_removed_before_serving(self) -> Steps:
        left = self.path / socket_name(POOL, "dead", 3)
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(left))
        with listening() as said:
            one = self.instance()
        assert one.found_at_taking == []
        assert said.about(left.name)
        yield one.live()

    @inlineCallbacks
    def test_a_standby_waits_logs_it_and_takes_over(self) -> Steps:
        first = self.instance()
        yield first.live()
        with listening() as said:
            second = self.instance("4567")
        assert second.calls == ["standby"]
        assert said.about("standing by")
        assert second.state.startswith("standby")
        assert not second.serving.ready(informed=False)
        assert second.serving.ready(informed=True)
        assert dict(second.plugin.registrations) == {}
        assert [each.name for each in self.path.glob("sgpud-*-4567-*")] == []
        yield first.serving.stop()
        assert second.state.startswith("standby")
        first.serving.release()
        yield second.live()
        assert second.calls == ["standby", "acquired"]
        assert second.state == "serving"
        wait_for = self.kubelet.wait_for
        yield deferToThread(wait_for, lambda seen: seen.allocatable(POOL) == 4, WITHIN)

    @inlineCallbacks
    def test_a_standby_that_could_not_bind_is_not_ready(self) -> Steps:
        first = self.instance()
        second = self.instance("4567")
        assert second.serving.ready(informed=True)
        blocker = self.path / socket_name("", "4567", 0)
        blocker.mkdir()
        with listening() as said:
            assert not second.serving.ready(informed=True)
        assert said.about("Not ready to take over: cannot bind a socket")
        blocker.rmdir()
        yield first.live()

    @inlineCallbacks
    def test_a_replaced_directory_is_served_again(self) -> Steps:
        one = self.instance()
        yield one.live()
        yield deferToThread(self.kubelet.stop)
        self.kubelet.disk.replace()
        yield one.when(lambda: one.calls == ["acquired", "acquired"])
        yield deferToThread(self.kubelet.start)
        yield one.live()
        assert len(list(self.path.glob("sgpud-*"))) == 1

    @inlineCallbacks
    def test_a_directory_that_appears_later_is_served(self) -> Steps:
        yield deferToThread(self.kubelet.stop)
        self.kubelet.disk.remove()
        one = self.instance()
        assert one.state == "no plugin directory"
        assert one.serving.ready(informed=False)
        yield deferToThread(self.kubelet.start)
        yield one.live()
        assert one.state == "serving"

    @inlineCallbacks
    def test_a_mount_of_a_deleted_directory_is_fatal(self) -> Steps:
        gone = self.path.with_name("gone")
        gone.mkdir()
        kept = os.open(gone, os.O_RDONLY)
        self.addCleanup(os.close, kept)
        one = self.instance(path=Path(f"/proc/self/fd/{kept}"))
        gone.rmdir()
        yield one.when(lambda: one.state != "serving")
        assert "mount it again" in one.reasons[0]

    @inlineCallbacks
    def test_a_stop_does_not_wait_for_an_endpoint_that_cannot_end(self) -> Steps:
        busy = Busy()
        one = self.instance(on=busy)
        yield one.live()
        with listening() as said:
            yield one.serving.stop()
        assert said.about("Some endpoints have not ended")
        one.serving.release()
        another = self.instance("4567")
        yield another.live()
        yield busy.free()

    @inlineCallbacks
    def test_a_stop_leaves_no_socket_and_keeps_the_lock_until_the_release(self) -> Steps:
        one = self.instance()
        yield one.live()
        yield one.serving.stop()
        assert list(self.path.glob("sgpud-*")) == []
        assert self.instance("4567").calls == ["standby"]
        one.serving.release()
        assert one.state == "no plugin directory"
