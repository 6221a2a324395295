"""How long a kubelet has had too few shares to give."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from sgpud.testing.kubelet.stand_in import StandInKubelet
from sgpud.testing.kubelet.view import KubeletView

if TYPE_CHECKING:
    from typing_extensions import Self

LOOK_AGAIN = 0.5
"""Seconds after which a watcher that nothing wakes looks whether it is to end."""


class Absences:
    """Watches while its context lasts, woken by each change in the kubelet."""

    def __init__(self, kubelet: StandInKubelet, resource: str, whole: int) -> None:
        """Fewer than `whole` healthy ids of `resource` are an absence."""
        self._kubelet = kubelet
        self._resource = resource
        self._whole = whole
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.lasted: list[float] = []
        """Seconds that each absence lasted; one that has not ended is none."""

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while (began := self._when(whole=False)) and (over := self._when(whole=True)):
            self.lasted.append(over - began)

    def _when(self, *, whole: bool) -> float:
        """The moment from which all are there, or not all; 0 if the watching ended before."""

        def moment(kubelet: KubeletView) -> float:
            there = kubelet.allocatable(self._resource) >= self._whole
            return time.monotonic() if there is whole else 0.0

        while not self._ended.is_set():
            with suppress(TimeoutError):
                return self._kubelet.wait_for(moment, LOOK_AGAIN)
        return 0.0
