"""Announces to systemd how the daemon does: its status line, and that it is ready."""

from __future__ import annotations

from collections.abc import Callable

from sgpud.bridge import Clock, Timer
from sgpud.core.status.view import NodeView, summary
from sgpud.serve.systemd import Systemd

SHOW_AFTER = 0.05
"""Seconds until a change shows: a start is many changes."""

ASK_AGAIN = 1.0
"""Seconds until a daemon that was not ready is asked again, whatever happens."""


class Announcer:
    """Shows the latest view, soon after something has changed."""

    def __init__(
        self,
        clock: Clock,
        systemd: Systemd,
        look: Callable[[], NodeView],
        ready: Callable[[], bool],
    ) -> None:
        """`look` makes the view; `ready` is asked until it is true for the first time."""
        self._clock = clock
        self._systemd = systemd
        self._look = look
        self._is_ready = ready
        self.ready = False
        """Whether it was ready once."""
        self._timer = Timer(clock)
        self._stopped = False

    def changed(self) -> None:
        """Something has changed: show it in a moment."""
        if not self._stopped:
            self._timer.set(SHOW_AFTER, self.show)

    def show(self) -> None:
        """Show it now."""
        self._timer.cancel()
        self._systemd.status(summary(self._look()))
        if not self.ready and self._is_ready():
            self.ready = True
            self._systemd.ready()
        elif not self.ready:
            self._timer.set(ASK_AGAIN, self.show)

    def stop(self) -> None:
        """Show nothing more."""
        self._stopped = True
        self._timer.cancel()
