"""Makes the service hang: test_hangs.py has every Python of its machine load this at its start.

Only `sgpud run` hangs, and only where the variable TEST_HANG of its unit says: at the "start",
before anything of sgpud is imported, until somebody opens the FIFO; in the "reactor", for ever
after somebody has.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

FIFO = Path("/run/hang")


def wait_for_somebody() -> None:
    """Return once the FIFO is opened for writing."""
    FIFO.open().close()


def block_the_reactor() -> None:
    """Have the reactor call what does not return."""
    wait_for_somebody()
    from twisted.internet import reactor  # noqa: PLC0415, TID251 - sgpud's, by now

    reactor.callFromThread(threading.Event().wait)  # type: ignore[attr-defined]


if sys.orig_argv[-2:] == ["/usr/bin/sgpud", "run"]:
    where = os.environ.get("TEST_HANG")
    if where == "start":
        wait_for_somebody()
    elif where == "reactor":
        threading.Thread(target=block_the_reactor, daemon=True).start()
