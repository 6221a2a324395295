"""A listening UNIX socket at a path that the sgpuds of a node share, one after the other.

At a handover the new one waits until the old one has taken its socket away, so that neither removes
the other's.
"""

from __future__ import annotations

import grp
import os
import socket
import stat
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Reactor, Timer

LOOK_EVERY = 5.0
"""Seconds between checks of the socket file, to recreate it if it was removed."""
HANDOVER = 0.1
"""Seconds between looks while another sgpud still answers on the socket."""
GRACE = 5.0
"""Seconds that another may answer before the log says so, and before looks become rarer."""
STANDING_BY = 1.0
"""Seconds between looks from then on."""


@frozen
class SocketKind:
    """What a socket is for: who may use it, and what the log says of it."""

    name: str
    """As in `Control socket`."""
    mode: int
    group: str = ""
    """The group that it belongs to, where the machine has that group; empty: this process's."""
    there: str = ""
    """What can be done once it is there."""
    without: str = ""
    """What to do until then."""
    occupied: str = ""
    """What it means that another sgpud answers there; empty: nothing that the log should say."""


class _Port(unix.Port):
    """A listening port that leaves its file alone: unlinking by path would hit a successor's."""

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)  # type: ignore[no-untyped-call]


class UnixSocket:
    """Listens from `start` to `stop`, and recreates its file if it was removed."""

    _log = Logger()

    def __init__(
        self, reactor: Reactor, path: Path, factory: IProtocolFactory, kind: SocketKind
    ) -> None:
        """Nothing happens before `start`."""
        self.path = path
        self._reactor = reactor
        self._factory = factory
        self._kind = kind
        self._port: _Port | None = None
        self._bound: tuple[int, ...] | None = None
        self._timer = Timer(reactor)
        self._problem = ""
        self._waited = 0.0

    @property
    def listening(self) -> bool:
        """Whether it is there."""
        return self._port is not None

    def start(self) -> None:
        """Listen, at once or as soon as it can be done; the log says why if not at once."""
        if not self._timer.active:
            self._look()

    def stop(self) -> Deferred[Any]:
        """Take the socket away; connections stay. Fires when nothing listens any more."""
        self._timer.cancel()
        # First the file, then the port: who finds nobody answering may remove the file.
        if self._bound is not None and _identity(self.path) == self._bound:
            self.path.unlink(missing_ok=True)
        return self._close()

    def _look(self) -> None:
        """Listen, if that is not so: the first time, after a hindrance, after a removal."""
        again = LOOK_EVERY
        try:
            if self._bound is not None and _identity(self.path) != self._bound:
                self._log.warn("{path} was removed; recreating it", path=self.path)
                self._close()
            if self._port is None:
                again = self._listen()
        except (OSError, CannotListenError) as problem:
            reason = problem.socketError if isinstance(problem, CannotListenError) else problem
            self._say(f"{reason}")
        self._timer.set(again, self._look)

    def _listen(self) -> float:
        if not self.path.parent.exists():
            self.path.parent.mkdir(parents=True)
            self.path.parent.chmod(0o755)
        if _answers(self.path):
            return self._wait()
        self._waited = 0.0
        self.path.unlink(missing_ok=True)
        mode = self._kind.mode
        port = _Port(os.fsencode(self.path), self._factory, mode=mode, reactor=self._reactor)
        port.startListening()  # type: ignore[no-untyped-call]
        self._give()
        self._port, self._bound = port, _identity(self.path)
        if self._problem:
            self._log.info(
                "{name} {path}: {there}",
                name=self._kind.name,
                path=self.path,
                there=self._kind.there,
            )
            self._problem = ""
        return LOOK_EVERY

    def _wait(self) -> float:
        self._waited += HANDOVER
        if self._waited <= GRACE:
            return HANDOVER
        if self._kind.occupied:
            self._say(self._kind.occupied)
        return STANDING_BY

    def _give(self) -> None:
        """Let the group have the socket, where there is one."""
        if not self._kind.group:
            return
        try:
            os.chown(self.path, -1, grp.getgrnam(self._kind.group).gr_gid)
        except KeyError:
            return
        except OSError as problem:
            self._log.warn(
                "{path} cannot be given to the group {group}: {problem}",
                path=self.path,
                group=self._kind.group,
                problem=problem.strerror or str(problem),
            )

    def _close(self) -> Deferred[Any]:
        port, self._port, self._bound = self._port, None, None
        return succeed(None) if port is None else maybeDeferred(port.stopListening)

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._log.error(
                "No {name} {path}: {problem}. {without}",
                name=self._kind.name.lower(),
                path=self.path,
                problem=problem,
                without=self._kind.without,
            )


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (found.st_dev, found.st_ino, found.st_ctime_ns)


def _answers(path: Path) -> bool:
    """Whether a process listens on this path. Anything but a socket raises FileExistsError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(None, "it exists and is not a socket: remove it")
    except FileNotFoundError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
