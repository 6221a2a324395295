"""Looks now and then at what the node has for handing GPUs over, in a thread of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from sgpud.bridge import Threads, in_thread
from sgpud.core.delivery import Host
from sgpud.core.gpu import Gpu
from sgpud.core.sharing import Delivery
from sgpud.gpus.host import look

LOOK_EVERY = 30.0
"""Seconds between looks: a CDI spec may be written, or a device node made, long after the start."""


class HostWatch:
    """Tells what is on the node for these GPUs, at first and whenever it has changed."""

    _log = Logger()

    def __init__(self, reactor: Threads, root: Path, told: Callable[[Host], None]) -> None:
        """`root` is the node's file system; `told` is called on the reactor."""
        self._reactor = reactor
        self._root = root
        self._told = told
        self._asked: tuple[tuple[Gpu, ...], Delivery] = ((), Delivery())
        self._known: Host | None = None
        self._busy = False
        self._again = False
        self._call: IDelayedCall | None = None
        self._stopped = False

    def look_for(self, gpus: Sequence[Gpu], delivery: Delivery) -> None:
        """Look for these from now on, and first of all at once."""
        real = tuple(gpu for gpu in gpus if not gpu.simulated)
        if (real, delivery) != self._asked:
            self._asked = (real, delivery)
            self._look()

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        self._cancel()

    def _look(self) -> None:
        self._cancel()
        if self._busy:
            self._again = True
            return
        gpus, delivery = self._asked
        if not gpus or self._stopped:
            return
        self._busy = True
        # In a thread: a folder of CDI specs can be large, and a disk slow.
        looking = in_thread(
            self._reactor, lambda: look(self._root, gpus, delivery.cdi_kind, delivery.mounts)
        )
        looking.addBoth(self._looked)

    def _looked(self, result: Host | Failure) -> None:
        self._busy = False
        if self._stopped:
            return
        if isinstance(result, Failure):
            self._log.failure("Looking at the node's device nodes and CDI specs failed", result)
        elif result != self._known:
            self._known = result
            self._told(result)
        again, self._again = self._again, False
        self._call = self._reactor.callLater(0.0 if again else LOOK_EVERY, self._look)

    def _cancel(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
