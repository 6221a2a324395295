"""A listening UNIX socket at a path that successive sgpud processes of a node use.

During a handover the new process waits until the old one has removed its socket, so that neither
removes the other's.
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
from sgpud.files import identity

LOOK_EVERY = 5.0
"""Seconds between checks of the socket file, to recreate it if it was removed."""
HANDOVER = 0.1
"""Seconds between checks while another sgpud still answers on the socket."""
GRACE = 5.0
"""Seconds that another may answer before this is logged and checks become less frequent."""
STANDBY_EVERY = 1.0
"""Seconds between checks from then on."""


@frozen
class SocketKind:
    """A socket's purpose: who may use it, and how the log refers to it."""

    name: str
    """As in `Control socket`."""
    mode: int
    group: str = ""
    """The group that owns it, if the machine has that group; empty: this process's."""
    recovered: str = ""
    """What to log once it listens after a failure."""
    hint: str = ""
    """What to do until then."""
    occupied: str = ""
    """What to log if another sgpud answers there; empty: nothing."""


class _Port(unix.Port):
    """A listening port that does not remove its file: that might be the successor's by now."""

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
        """Whether it listens."""
        return self._port is not None

    def start(self) -> None:
        """Listen, now or as soon as possible; the log says what prevents it."""
        if not self._timer.active:
            self._look()

    def stop(self) -> Deferred[Any]:
        """Remove the socket; connections stay. Fires once it no longer listens."""
        self._timer.cancel()
        # The file first, then the port: another process may remove a file that nobody answers on.
        if self._bound is not None and identity(self.path, follow=False) == self._bound:
            self.path.unlink(missing_ok=True)
        return self._close()

    def _look(self) -> None:
        """Listen, unless it does: the first time, after an error, after a removal."""
        again = LOOK_EVERY
        try:
            if self._bound is not None and identity(self.path, follow=False) != self._bound:
                self._log.warn("{path} was removed; recreating it", path=self.path)
                self._close()
            if self._port is None:
                again = self._listen()
        except (OSError, CannotListenError) as problem:
            reason = problem.socketError if isinstance(problem, CannotListenError) else problem
            self._report(f"{reason}")
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
        self._set_group()
        self._port, self._bound = port, identity(self.path, follow=False)
        if self._problem:
            self._log.info(
                "{name} {path}: {recovered}",
                name=self._kind.name,
                path=self.path,
                recovered=self._kind.recovered,
            )
            self._problem = ""
        return LOOK_EVERY

    def _wait(self) -> float:
        self._waited += HANDOVER
        if self._waited <= GRACE:
            return HANDOVER
        if self._kind.occupied:
            self._report(self._kind.occupied)
        return STANDBY_EVERY

    def _set_group(self) -> None:
        """Give the socket to its group, if that exists."""
        if not self._kind.group:
            return
        try:
            os.chown(self.path, -1, grp.getgrnam(self._kind.group).gr_gid)
        except KeyError:
            return
        except OSError as problem:
            self._log.warn(
                "Cannot change the group of {path} to {group}: {problem}",
                path=self.path,
                group=self._kind.group,
                problem=problem.strerror or str(problem),
            )

    def _close(self) -> Deferred[Any]:
        port, self._port, self._bound = self._port, None, None
        return succeed(None) if port is None else maybeDeferred(port.stopListening)

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._log.error(
                "No {name} {path}: {problem}. {hint}",
                name=self._kind.name.lower(),
                path=self.path,
                problem=problem,
                hint=self._kind.hint,
            )


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
