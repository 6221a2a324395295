"""Says when a GPU has become full, and when it no longer is."""

from __future__ import annotations

from twisted.logger import Logger

from sgpud.core.node import Node


class Fullness:
    """Compares each turn of the node with the one before."""

    _log = Logger()

    def __init__(self) -> None:
        """No GPU is full at first."""
        self._full: dict[str, str] = {}

    def look(self, node: Node) -> None:
        """Log what the full-GPU guard has decided anew."""
        full = {uuid: watch.reason for uuid, watch in node.watches.items() if watch.full}
        for uuid in full.keys() - self._full.keys():
            self._log.warn(
                "GPU {gpu} gets no more pods, {reason}: its free shares are withheld",
                gpu=uuid,
                reason=full[uuid],
            )
        for uuid in self._full.keys() - full.keys():
            self._log.info("GPU {gpu} gets pods again: it is no longer full", gpu=uuid)
        self._full = full
