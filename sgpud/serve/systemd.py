"""Notifies systemd: ready, reloading, stopping, the watchdog, and the status line.

Without NOTIFY_SOCKET in the environment nothing is sent or imported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial

from sgpud.bridge import Clock, Timer
from sgpud.core.text import one_line

SEND_WITHIN = 0.1
"""Seconds for a message to systemd before it is dropped."""
Send = Callable[[str], object]


def connect() -> Send:
    """A function that sends to NOTIFY_SOCKET; failures are silent."""
    from sdnotify import SystemdNotifier  # noqa: PLC0415 - needed under systemd only

    notifier = SystemdNotifier()
    if notifier.socket is not None:
        # A service manager that does not read must not block the reactor.
        notifier.socket.settimeout(SEND_WITHIN)
    notify: Send = notifier.notify
    # sdnotify encodes as Latin-1, and drops what does not fit; systemd reads UTF-8.
    return lambda message: notify(message.encode().decode("latin-1"))


def _discard(_: str) -> None:
    """Not under systemd."""


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds between watchdog messages: half of what systemd allows; None: no watchdog.

    WATCHDOG_USEC and WATCHDOG_PID are described in sd_watchdog_enabled(3).
    """
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
        ours = int(environ.get("WATCHDOG_PID", pid)) == pid
    except ValueError:
        return None
    return microseconds / 2e6 if ours and microseconds > 0 else None


class Systemd:
    """Notifies systemd (sd_notify(3)).

    From `start` to `stop` it feeds the watchdog from the reactor as long as every part is alive:
    systemd restarts a daemon that is blocked or has a failed part.
    """

    def __init__(
        self, clock: Clock, environ: Mapping[str, str], connect: Callable[[], Send] = connect
    ) -> None:
        """`connect` is called at once, under systemd."""
        self._clock = clock
        under_systemd = bool(environ.get("NOTIFY_SOCKET"))
        self._send: Send = connect() if under_systemd else _discard
        self._interval = watchdog_interval(environ, os.getpid()) if under_systemd else None
        self._timer = Timer(clock)
        self._status = ""

    def start(self, alive: Callable[[], bool] = lambda: True) -> None:
        """Feed the watchdog, if systemd wants it; `alive` is called before each message."""
        if self._interval is not None and not self._timer.active:
            self._feed(self._interval, alive)

    def stop(self) -> None:
        """Stop feeding the watchdog."""
        self._timer.cancel()

    def ready(self) -> None:
        """Started, or finished a reload, successful or not."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; the same line again is not sent again."""
        line = one_line(text)
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        # Newer systemds (Type=notify-reload) want the time of CLOCK_MONOTONIC.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Stopping has begun."""
        self._send("STOPPING=1")

    def _feed(self, interval: float, alive: Callable[[], bool]) -> None:
        self._timer.set(interval, partial(self._feed, interval, alive))
        if alive():
            self._send("WATCHDOG=1")
