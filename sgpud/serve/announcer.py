"""Announces to systemd how the daemon does: its status line, and that it is ready."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from sgpud.bridge import Clock, Debounce, Timer
from sgpud.core.status.view import NodeView, summary
from sgpud.serve.systemd import Systemd

SHOW_AFTER = 0.05
"""Seconds until a change shows: a start is many changes. If they never end, each second."""

ASK_AGAIN = 1.0
"""Seconds until a daemon that was not ready is asked again, whatever happens."""


class Announcer:
    """Shows the latest view, soon after something has changed."""

    _log = Logger()

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
        self._burst = Debounce(clock, self.show, SHOW_AFTER)
        self._again = Timer(clock)
        self._stopped = False

    def changed(self) -> None:
        """Something has changed: show it in a moment."""
        if not self._stopped:
            self._burst.request()

    def show(self) -> None:
        """Show it now."""
        self._cancel()
        self._systemd.status(self._summary())
        if not self.ready and self._is_ready():
            self.ready = True
            self._systemd.ready()
        elif not self.ready:
            self._again.set(ASK_AGAIN, self.show)

    def stop(self) -> None:
        """Show nothing more."""
        self._stopped = True
        self._cancel()

    def _summary(self) -> str:
        try:
            return summary(self._look())
        except Exception:  # noqa: BLE001 - whatever it is, the next look may go well
            self._log.failure("Cannot make the status line")
            return "no status: the log has the reason"

    def _cancel(self) -> None:
        self._burst.cancel()
        self._again.cancel()
