"""Announces the status line and readiness to systemd."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from sgpud.bridge import Clock, Debounce, Timer
from sgpud.core.status.view import NodeView, summary
from sgpud.serve.systemd import Systemd

SHOW_AFTER = 0.05
"""Seconds until a change is shown, as a start is many changes; at the latest each second."""

CHECK_EVERY = 1.0
"""Seconds between checks for readiness, whether something changed or not."""


class Announcer:
    """Shows the latest view soon after a change."""

    _log = Logger()

    def __init__(
        self,
        clock: Clock,
        systemd: Systemd,
        look: Callable[[], NodeView],
        ready: Callable[[], bool],
    ) -> None:
        """`look` makes the view; `ready` is called until it returns True."""
        self._clock = clock
        self._systemd = systemd
        self._look = look
        self._is_ready = ready
        self.ready = False
        """Whether READY=1 was sent."""
        self._burst = Debounce(clock, self.show, SHOW_AFTER)
        self._again = Timer(clock)
        self._stopped = False

    def changed(self) -> None:
        """Something has changed: show it soon."""
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
            self._again.set(CHECK_EVERY, self.show)

    def stop(self) -> None:
        """Stop showing."""
        self._stopped = True
        self._cancel()

    def _summary(self) -> str:
        try:
            return summary(self._look())
        except Exception:  # noqa: BLE001 - whatever it is, the next one may succeed
            self._log.failure("Cannot build the status line")
            return "no status: see the log"

    def _cancel(self) -> None:
        self._burst.cancel()
        self._again.cancel()
