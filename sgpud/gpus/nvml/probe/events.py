"""Waits for the events of the GPUs through pynvml, inside the child process.

One thread only waits, so that nothing delays an event. The reading thread creates the event sets,
because a call that hangs on a GPU must be noticed there.
"""

from __future__ import annotations

import ctypes
import math
import sys
import threading
import time
from contextlib import suppress

from sgpud.gpus.nvml.probe.inventory import error_text
from sgpud.gpus.nvml.probe.protocol import COALESCE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

    from sgpud.gpus.nvml.probe.inventory import InventoryReader
    from sgpud.gpus.nvml.probe.sampling import PhysicalGpu


MOST_KINDS = 256
"""The most different events in one window; further ones wait for the next window."""


class BurstCounter:
    """Counts events within a window, so that a burst is a few lines however long it is."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[tuple[object, ...], tuple[dict[str, Any], int]] = {}
        self._end = 0.0

    def is_first(self, fields: dict[str, Any]) -> bool:
        """Whether to report an event now; otherwise it is counted until the window ends."""
        if not self._counts:
            self._end = self._clock() + COALESCE
        key = tuple(fields.values())
        counted = self._counts.get(key)
        self._counts[key] = (fields, counted[1] + 1 if counted else 0)
        return counted is None

    @property
    def full(self) -> bool:
        """Whether no other event can be counted before the window ends."""
        return len(self._counts) >= MOST_KINDS

    def due(self, most: float) -> float:
        """Seconds until counts are due, at most `most`."""
        return max(0.0, min(most, self._end - self._clock())) if self._counts else most

    def overdue(self) -> list[tuple[dict[str, Any], int]]:
        """The counts, once their window has ended."""
        if not self._counts or self._clock() < self._end:
            return []
        found = [(fields, count) for fields, count in self._counts.values() if count]
        self._counts = {}
        return found


RECOVERY_CHANGED = 154
"""The XID for: a GPU's recovery action has changed."""
WHOLE = 0xFFFFFFFF
"""The value for no MIG instance in an event."""
WAIT = 1.0
"""Seconds of one wait: after it, a new event set is used, and the thread is known to be alive."""
STUCK = 10.0
"""Seconds after which a wait of WAIT seconds counts as hung."""
LASTING = 60.0
"""Seconds after which a failure of an event set counts as the first one again."""
RETRY_MOST = 30.0
MOST_ATTEMPTS = 8


class EventReader:
    """The event set of this process; recreated without a GPU that breaks it."""

    def __init__(
        self,
        nvml: ModuleType,
        reader: InventoryReader,
        send: Callable[..., None],
        wake: Callable[[], None],
    ) -> None:
        """`wake` is called when the reading thread should check at once."""
        self._nvml = nvml
        self._reader = reader
        self._send = send
        self._wake = wake
        self._changed = threading.Condition()
        self._pause = threading.Event()
        self._set: Any = None
        self._names: dict[int | None, str] = {}
        self._beat = 0.0
        self._never: set[str] = set()
        self.failed = False
        """Whether the event set has failed and was not recreated yet."""
        self._made = 0.0
        self._attempt = 0
        self._retry = 0.0
        self.errors: dict[str, Exception] = {}
        """By UUID, why a GPU's events cannot be waited for."""
        self.urgent = False
        """Set when the GPUs should be read at once; the reading thread clears it."""

    def start(self) -> None:
        """Start the waiting thread."""
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def stuck(self) -> bool:
        """Whether a wait hangs."""
        return self._set is not None and time.monotonic() - self._beat > STUCK

    def tend(self, gpus: Sequence[PhysicalGpu], begin: Callable[[str, PhysicalGpu], None]) -> bool:
        """Create the event set for these GPUs if there is none, or if a GPU is not in it.

        `begin` is called before calls for one GPU, which may hang. Returns whether there was
        something to do.
        """
        now = time.monotonic()
        listened = set(self._names.values())
        failed, known = self.failed, listened | self._never
        wanted = [gpu for gpu in gpus if failed or gpu.uuid not in known]
        if not wanted or now < self._retry:
            return False
        if now - self._made > LASTING:
            self._attempt = 0
        self.errors = {}
        healthy = {gpu.uuid for gpu in wanted if self._alone(gpu, begin)}
        if failed or healthy:
            kept = set() if failed else listened
            self._make([gpu for gpu in gpus if gpu.uuid in healthy | kept])
        if failed or self.errors:
            self._retry = now + min(RETRY_MOST, 2.0**self._attempt)
            self._attempt = min(self._attempt + 1, MOST_ATTEMPTS)
        return True

    def _alone(self, gpu: PhysicalGpu, begin: Callable[[str, PhysicalGpu], None]) -> bool:
        """Whether this GPU's events can be waited for: tried with a separate set."""
        if gpu.uuid in self._never:
            return False
        begin("events", gpu)
        made = self._create([gpu])
        if made is None:
            return False
        try:
            if self._register(gpu, made):
                self._take(self._wait(made, 0.0), {_address(gpu.handle): gpu.uuid}, BurstCounter())
        except self._nvml.NVMLError as error:
            self._note(gpu, error)
        self._free(made)
        return gpu.uuid not in self._never and gpu.uuid not in self.errors

    def _create(self, gpus: Sequence[PhysicalGpu]) -> Any:
        """A new, empty set; None if it cannot be created."""
        try:
            return self._nvml.nvmlEventSetCreate() if gpus else None
        except self._nvml.NVMLError as error:
            for gpu in gpus:
                self._note(gpu, error)
            return None

    def _register(self, gpu: PhysicalGpu, made: Any) -> bool:
        """Whether a set gets the events of this GPU from now on."""
        try:
            kinds = self._kinds(gpu.handle)
            if kinds:
                self._nvml.nvmlDeviceRegisterEvents(gpu.handle, kinds, made)
                return True
            self._never.add(gpu.uuid)
        except self._nvml.NVMLError as error:
            self._note(gpu, error)
        return False

    def _note(self, gpu: PhysicalGpu, error: Exception) -> None:
        """Record why a GPU has no events; a missing feature is not an error."""
        if self._reader.is_missing(error):
            self._never.add(gpu.uuid)
        else:
            self.errors[gpu.uuid] = error

    def _kinds(self, handle: Any) -> int:
        nvml = self._nvml
        wanted = nvml.nvmlEventTypeXidCriticalError | nvml.nvmlEventTypeDoubleBitEccError
        offered = self._reader.optional("nvmlDeviceGetSupportedEventTypes", handle)
        return int(wanted & (offered or 0))

    def _make(self, gpus: Sequence[PhysicalGpu]) -> None:
        made = self._create(gpus)
        joined = [gpu for gpu in gpus if made is not None and self._register(gpu, made)]
        names = {_address(gpu.handle): gpu.uuid for gpu in joined}
        with self._changed:
            self._set, self._names, self.failed = made, names, False
            self._made = self._beat = time.monotonic()
            self._changed.notify()

    def _free(self, made: Any) -> None:
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlEventSetFree(made)

    def _run(self) -> None:
        current: Any = None
        counted = BurstCounter()
        while True:
            with self._changed:
                while self._set is None:
                    self._changed.wait()
                old, current, names = current, self._set, self._names
                self._beat = time.monotonic()
            try:
                if old is not None and old is not current:
                    self._free(old)
                self._take(self._wait(current, counted.due(WAIT)), names, counted)
            except self._nvml.NVMLError as error:
                # It would fail again at once.
                self._lose(current, error)
                current = None
            if counted.full:
                self._pause.wait(counted.due(WAIT))
            for fields, count in counted.overdue():
                self._send(**fields, count=count)

    def _lose(self, current: Any, error: Exception) -> None:
        sys.stderr.write(f"waiting for events failed: {error_text(error)}\n")
        self._free(current)
        with self._changed:
            if self._set is current:
                self._set, self._names, self.failed = None, {}, True
        self.urgent = True
        self._wake()

    def _wait(self, made: Any, seconds: float) -> Any:
        try:
            return self._nvml.nvmlEventSetWait(made, math.ceil(seconds * 1000))
        except self._nvml.NVMLError as error:
            if getattr(error, "value", None) == self._nvml.NVML_ERROR_TIMEOUT:
                return None
            raise

    def _take(self, data: Any, names: dict[int | None, str], counted: BurstCounter) -> None:
        """Report an event, unless the same was reported in this window: then it is counted."""
        uuid = data and names.get(_address(data.device))
        if not uuid:
            return
        fields: dict[str, Any] = {"message": "ecc", "gpu": uuid}
        if data.eventType & self._nvml.nvmlEventTypeXidCriticalError:
            fields = {"message": "xid", "gpu": uuid, "number": int(data.eventData)}
        fields["gi"] = _instance(getattr(data, "gpuInstanceId", WHOLE))
        fields["ci"] = _instance(getattr(data, "computeInstanceId", WHOLE))
        if counted.is_first(fields):
            self._send(**fields, count=1)
        if fields.get("number") == RECOVERY_CHANGED:
            self.urgent = True
            self._wake()


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _instance(number: int) -> int | None:
    return None if number == WHOLE else int(number)
