"""Serving the plugin directory: locking it, keeping its pools registered, releasing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from sgpud.bridge import Reactor, Timer, in_thread
from sgpud.core.registration.events import RegistrationState
from sgpud.folder_watcher import FolderWatcher
from sgpud.kubelet.deviceplugin.endpoint import try_bind, warm_up
from sgpud.kubelet.directory import DirectoryObserver, PluginDirectory

RETIRE_WITHIN = 1.0
"""Seconds for the endpoints to retire when stopping, before the lock is released anyway."""


class Front(Protocol):
    """What is served to the kubelet: a device plugin, or a driver of DRA."""

    @property
    def registrations(self) -> Mapping[str, RegistrationState]:
        """The state of each pool's registration."""

    @property
    def registered(self) -> int:
        """Register calls that the kubelet accepted."""

    def update(self, resources: Iterable[str]) -> None:
        """Set the current pools."""

    def clear_stale(self) -> list[str]:
        """Remove the sockets that an earlier run left; their names."""

    def activate(self) -> None:
        """Serve and register."""

    def deactivate(self) -> Deferred[None]:
        """End everything; fires when that is done."""

    def kubelet_seen(self) -> None:
        """kubelet.sock appeared or was replaced."""

    def kubelet_gone(self) -> None:
        """kubelet.sock was removed."""

    def checkpoint_changed(self) -> None:
        """The kubelet's checkpoint may have changed."""

    def plugin_seen(self) -> None:
        """Another plugin's socket appeared in the directory."""


@frozen
class ServingObserver:
    """Callbacks of `Serving`, on the reactor."""

    on_acquired: Callable[[], None]
    """The directory was locked; called before anything is served in it."""
    on_served: Callable[[], None]
    """Every pool is being registered: time for what can wait until then."""
    on_standby: Callable[[], None]
    """Another process serves the directory."""
    on_checkpoint: Callable[[], None]
    """The kubelet's checkpoint may have changed."""
    on_kubelet: Callable[[], None]
    """kubelet.sock appeared or was replaced."""
    on_change: Callable[[], None]
    """Something in the status has changed."""
    on_fatal: Callable[[str], None]
    """Only a restart of this process helps; the reason."""


class Serving:
    """Whether, and how, this process serves the plugin directory."""

    _log = Logger()

    def __init__(
        self,
        reactor: Reactor,
        front: Front,
        path: Path,
        nonce: str,
        watcher: Callable[[Callable[[], None]], FolderWatcher],
        observer: ServingObserver,
    ) -> None:
        """`nonce` is part of the sockets' names; `watcher` makes a source of hints."""
        self.path = path
        self._reactor = reactor
        self._nonce = nonce
        self._observer = observer
        self._front = front
        self._waiting = False
        callbacks = DirectoryObserver(
            on_acquired=self._acquired,
            on_lost=self._lost,
            on_standby=self._wait,
            on_kubelet=self._kubelet_seen,
            on_kubelet_gone=self._front.kubelet_gone,
            on_checkpoint=self._checkpoint,
            on_plugin=self._front.plugin_seen,
            on_stale_mount=self._stale_mount,
        )
        self._directory = PluginDirectory(path, nonce, reactor, callbacks, watcher)

    @property
    def state(self) -> str:
        """`serving`, `standby: …` or `no plugin directory`."""
        if self._directory.ours:
            return "serving"
        if self._waiting:
            return "standby: another sgpud serves the plugin directory"
        return "no plugin directory"

    @property
    def locked(self) -> bool:
        """Whether this process or another serves the plugin directory."""
        return self._directory.ours or self._waiting

    @property
    def alive(self) -> bool:
        """Whether the plugin directory is watched."""
        return self._directory.alive

    def start(self) -> None:
        """Lock and serve the directory as soon as possible."""
        self._directory.start()

    def ready(self, *, informed: bool) -> bool:
        """Whether the daemon counts as started.

        That its parts run is enough for the one that serves. A standby also has to be `informed`
        (it knows its GPUs, or why it does not), and able to bind a socket in the directory.
        """
        if not self._waiting:
            return True
        problem = try_bind(self.path, self._nonce)
        if problem:
            self._log.warn("Not ready to take over: {problem}", problem=problem)
        return informed and not problem

    def stop(self) -> Deferred[None]:
        """Retire every endpoint; the directory is still locked.

        Fires after RETIRE_WITHIN at the latest, whatever hangs in the end of one.
        """
        self._directory.stop_looking()
        ended: Deferred[None] = Deferred()
        late = Timer(self._reactor)
        late.set(RETIRE_WITHIN, partial(self._give_up, ended))

        def retired(_: object) -> None:
            if late.active:
                late.cancel()
                ended.callback(None)

        self._front.deactivate().addBoth(retired)
        return ended

    def release(self) -> None:
        """Release the directory for the next process.

        After the endpoints have ended: a kubelet whose old stream ends after the next one has
        registered would disconnect that one.
        """
        self._directory.release()

    @property
    def followed(self) -> bool:
        """Whether another process serves the directory, after `release`."""
        return self._directory.followed

    def _give_up(self, ended: Deferred[None]) -> None:
        self._log.warn(
            "Some endpoints have not ended within {seconds:g} s; the next start cleans up",
            seconds=RETIRE_WITHIN,
        )
        ended.callback(None)

    def _acquired(self) -> None:
        self._waiting = False
        self._log.info("Serving {directory}", directory=str(self.path))
        stale = self._front.clear_stale()
        if stale:
            self._log.info("Removed sockets of an earlier run: {names}", names=", ".join(stale))
        self._observer.on_acquired()
        self._front.activate()
        self._observer.on_served()
        self._observer.on_change()

    def _kubelet_seen(self) -> None:
        self._front.kubelet_seen()
        self._observer.on_kubelet()

    def _checkpoint(self) -> None:
        self._front.checkpoint_changed()
        self._observer.on_checkpoint()

    def _lost(self) -> None:
        self._log.warn(
            "{directory} was removed or replaced; serving it again once it exists",
            directory=str(self.path),
        )
        self._front.deactivate()
        self._observer.on_change()

    def _wait(self) -> None:
        self._waiting = True
        in_thread(self._reactor, warm_up)
        self._log.info("Another sgpud serves {directory}; standing by", directory=str(self.path))
        self._observer.on_standby()
        self._observer.on_change()

    def _stale_mount(self) -> None:
        self._observer.on_fatal(
            f"{self.path} is a mount of a directory that was deleted: mount it again"
        )
