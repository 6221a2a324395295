"""Serving the plugin directory: taking it, keeping every pool registered in it, giving it up."""

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
"""Seconds for the endpoints to retire when stopping, before the lock is released all the same."""


class Front(Protocol):
    """What is served to the kubelet: a device plugin, or a driver of DRA."""

    @property
    def registrations(self) -> Mapping[str, RegistrationState]:
        """Where each pool's registration stands."""

    @property
    def registered(self) -> int:
        """How often the kubelet has registered it."""

    def update(self, resources: Iterable[str]) -> None:
        """The pools there are now."""

    def clear_stale(self) -> list[str]:
        """Remove the sockets that an earlier run left; their names."""

    def activate(self) -> None:
        """Serve and register."""

    def deactivate(self) -> Deferred[None]:
        """End everything; fires when that is done."""

    def kubelet_seen(self) -> None:
        """There is a new kubelet.sock."""

    def kubelet_gone(self) -> None:
        """There is no kubelet.sock."""

    def books_changed(self) -> None:
        """The kubelet's checkpoint may have changed."""


@frozen
class ServingObserver:
    """What is told of serving, on the reactor."""

    taken: Callable[[], None]
    """The directory is this process's now; called before anything is served in it."""
    served: Callable[[], None]
    """Every pool is being registered: time for what can wait until then."""
    waits: Callable[[], None]
    """Another process serves it."""
    checkpoint: Callable[[], None]
    """The kubelet's checkpoint may have changed."""
    kubelet_started: Callable[[], None]
    """There is a new kubelet.sock."""
    changed: Callable[[], None]
    """Something that people see has changed."""
    hopeless: Callable[[str], None]
    """Only a new start of this process can help; the reason."""


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
        listener: ServingObserver,
    ) -> None:
        """`nonce` is part of the sockets' names; `watcher` makes a source of hints."""
        self.path = path
        self._reactor = reactor
        self._nonce = nonce
        self._listener = listener
        self._front = front
        self._waiting = False
        events = DirectoryObserver(
            ours=self._ours,
            lost=self._lost,
            waiting=self._wait,
            kubelet_seen=self._kubelet_seen,
            kubelet_gone=self._front.kubelet_gone,
            checkpoint=self._checkpoint,
            stuck=self._stuck,
        )
        self._directory = PluginDirectory(path, reactor, events, watcher)

    @property
    def state(self) -> str:
        """`serving`, `standby: …` or `no plugin directory`."""
        if self._directory.ours:
            return "serving"
        if self._waiting:
            return "standby: another sgpud serves the plugin directory"
        return "no plugin directory"

    @property
    def taken(self) -> bool:
        """Whether this process or another serves the plugin directory; else there is none yet."""
        return self._directory.ours or self._waiting

    @property
    def alive(self) -> bool:
        """Whether the plugin directory is watched."""
        return self._directory.alive

    @property
    def registrations(self) -> Mapping[str, RegistrationState]:
        """Where each pool's registration stands."""
        return self._front.registrations

    @property
    def registered(self) -> int:
        """Register calls that the kubelet answered."""
        return self._front.registered

    def start(self) -> None:
        """Take the directory as soon as that can be."""
        self._directory.start()

    def update(self, resources: Iterable[str]) -> None:
        """The pools there are now."""
        self._front.update(resources)

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
        """Let the next one have the directory.

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
            "Not every endpoint has ended within {seconds:g} s: leaving the rest to the next start",
            seconds=RETIRE_WITHIN,
        )
        ended.callback(None)

    def _ours(self) -> None:
        self._waiting = False
        self._log.info("Serving {directory}", directory=str(self.path))
        stale = self._front.clear_stale()
        if stale:
            self._log.info("Removed what an earlier run left: {names}", names=", ".join(stale))
        self._listener.taken()
        self._front.activate()
        self._listener.served()
        self._listener.changed()

    def _kubelet_seen(self) -> None:
        self._front.kubelet_seen()
        self._listener.kubelet_started()

    def _checkpoint(self) -> None:
        self._front.books_changed()
        self._listener.checkpoint()

    def _lost(self) -> None:
        self._log.warn(
            "{directory} is gone or was replaced; serving again as soon as it is there",
            directory=str(self.path),
        )
        self._front.deactivate()
        self._listener.changed()

    def _wait(self) -> None:
        self._waiting = True
        in_thread(self._reactor, warm_up)
        self._log.info(
            "Another sgpud serves {directory}; waiting for its end", directory=str(self.path)
        )
        self._listener.waits()
        self._listener.changed()

    def _stuck(self) -> None:
        self._listener.hopeless(
            f"{self.path} shows a directory that was deleted: its mount has to be made anew"
        )
