"""What the helper does, request by request: set, get, clear, probe.

    {"op": "set", "pod": UID, "cgroup": PATH, "gpu": UUID, "bytes": N, "late": false}
        -> {"ok": true, "limit": N}
    {"op": "clear", "pod": UID, "cgroup": PATH, "gpu": UUID}
    {"op": "get"}
        -> {"ok": true, "caps": [{"pod": UID, "cgroup": PATH, "gpu": UUID, "bytes": N,
            "late": false, "limit": N | null, "used": N | null, "problem": TEXT}, ...]}
    {"op": "probe", "gpus": [UUID, ...]}
        -> {"ok": true, "gpus": {UUID: {"backend": "dmem" | "misc" | "", "problem": TEXT}}}

A request that is not carried out is answered with {"ok": false, "error": KIND, "detail": TEXT}. A
limit that somebody else has set is never changed.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress

from sgpud.limits.helper.cgroups import LimitRefusedError, pod_cgroup, scratch
from sgpud.limits.helper.nvml import UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from sgpud.limits.helper.record import Record
    from sgpud.limits.helper.worker import Worker

CALL_WITHIN = 5.0
"""Seconds for the calls to NVML of one request, all together."""
_GPU = re.compile(r"GPU-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_MIB = 2**20
_MOST_GPUS = 64
_TRIED = 2**30
"""Bytes of the limit that a probe sets on a cgroup of its own."""


class Limiter:
    """Carries out requests."""

    def __init__(
        self,
        root: str,
        record: Record,
        worker: Worker,
        locate: Callable[[str, str, str], int] = pod_cgroup,
    ) -> None:
        """`root`: where cgroup v2 is mounted. `locate` checks a path, as pod_cgroup does."""
        self._root = root
        self._locate = locate
        self._record = record
        self._worker = worker
        self._deadline = 0.0

    def answer(self, request: object) -> dict[str, Any]:
        """The answer to a request."""
        self._deadline = time.monotonic() + CALL_WITHIN
        try:
            op, said = self._op(request)
            with self._record.locked():
                return {"ok": True, **op(said)}
        except LimitRefusedError as refusal:
            return {"ok": False, "error": refusal.kind, "detail": refusal.detail}

    def _op(self, request: object) -> tuple[Callable[..., dict[str, Any]], dict[str, Any]]:
        ops = {"set": self._set, "get": self._get, "clear": self._clear, "probe": self._probe}
        if isinstance(request, dict):
            name = request.get("op")
            if isinstance(name, str) and name in ops:
                return ops[name], request
        raise LimitRefusedError("invalid", f"not a request: op is one of {', '.join(ops)}")

    def _set(self, request: Mapping[str, Any]) -> dict[str, Any]:
        pod, cgroup, gpu, inode = self._target(request)
        limit, late = request.get("bytes"), request.get("late", False)
        if type(limit) is not int or not _MIB <= limit < UNLIMITED or limit % _MIB:
            raise LimitRefusedError("invalid", f"bytes is a multiple of 1 MiB, not {limit!r}")
        if type(late) is not bool:
            raise LimitRefusedError("invalid", f"late is true or false, not {late!r}")
        ours = self._record.of(cgroup, inode, gpu)
        found = self._limit(gpu, cgroup)
        if found not in {UNLIMITED, limit, *ours}:
            raise LimitRefusedError("foreign", f"somebody else has limited it to {found} bytes")
        late = late or (bool(ours) and self._record.is_late(cgroup, gpu))
        cap = {"bytes": list(dict.fromkeys((limit, *ours))), "late": late}
        self._record.put(cgroup, inode, pod, gpu, cap)
        try:
            self._put(gpu, cgroup, limit)
        except LimitRefusedError:
            # Whatever it says: with what was recorded, the next try knows the limit as ours.
            if not ours and found == UNLIMITED:
                self._undo(gpu, cgroup, limit)
            raise
        self._record.put(cgroup, inode, pod, gpu, {**cap, "bytes": [limit]})
        return {"limit": limit}

    def _put(self, gpu: str, cgroup: str, limit: int) -> None:
        self._worker.call(self._deadline, "set", gpu, cgroup, limit)
        read = self._limit(gpu, cgroup)
        if read != limit:
            # Some kernels accept a limit below what is in use, and keep the old one.
            raise LimitRefusedError("value", f"{limit} bytes were set, and the driver shows {read}")

    def _undo(self, gpu: str, cgroup: str, limit: int) -> None:
        """Forget a limit that could not be set, once it is certain that it is not there."""
        with suppress(LimitRefusedError):
            if self._limit(gpu, cgroup) != limit:
                self._record.drop(cgroup, gpu)

    def _clear(self, request: Mapping[str, Any]) -> dict[str, Any]:
        try:
            _, cgroup, gpu, inode = self._target(request)
        except LimitRefusedError as refusal:
            if refusal.kind != "gone":
                raise
            self._record.forget_gone()
            return {}
        ours = self._record.of(cgroup, inode, gpu)
        if ours and self._limit(gpu, cgroup) in ours:
            self._worker.call(self._deadline, "set", gpu, cgroup, UNLIMITED)
        self._record.drop(cgroup, gpu)
        return {}

    def _get(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        self._record.forget_gone()
        caps = []
        for cgroup, known in self._record.caps.items():
            for gpu, cap in known["gpus"].items():
                one = {"pod": known["pod"], "cgroup": cgroup, "gpu": gpu, "late": cap["late"]}
                one |= {"bytes": cap["bytes"][0], "limit": None, "used": None, "problem": ""}
                try:
                    limit, used = self._worker.call(self._deadline, "get", gpu, cgroup)
                    if limit != UNLIMITED:
                        one |= {"limit": limit, "used": used}
                except LimitRefusedError as refusal:
                    one["problem"] = refusal.detail
                caps.append(one)
        return {"caps": caps}

    def _probe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        gpus = request.get("gpus")
        if not isinstance(gpus, list) or len(gpus) > _MOST_GPUS or not all(map(_is_gpu, gpus)):
            raise LimitRefusedError("invalid", "gpus is a list of UUIDs of GPUs")
        return {"gpus": {gpu: self._probed(gpu) for gpu in gpus}}

    def _probed(self, gpu: str) -> dict[str, str]:
        try:
            return {"backend": self._tried(gpu), "problem": ""}
        except LimitRefusedError as refusal:
            return {"backend": "", "problem": refusal.detail}

    def _tried(self, gpu: str) -> str:
        """What the driver limits memory with: set a limit, read it back, clear it.

        With misc a limit counts for the cgroups below too, as far as they have none; with dmem each
        has its own.
        """
        with scratch(self._root) as (outer, inner):
            self._worker.call(self._deadline, "set", gpu, outer, _TRIED)
            try:
                if self._limit(gpu, outer) != _TRIED:
                    raise LimitRefusedError("unsupported", "a limit cannot be read back")
                inherited = self._limit(gpu, inner) == _TRIED
            finally:
                self._worker.call(self._deadline, "set", gpu, outer, UNLIMITED)
        return "misc" if inherited else "dmem"

    def _limit(self, gpu: str, cgroup: str) -> int:
        return self._worker.call(self._deadline, "get", gpu, cgroup)[0]

    def _target(self, request: Mapping[str, Any]) -> tuple[str, str, str, int]:
        pod, cgroup, gpu = (request.get(name) for name in ("pod", "cgroup", "gpu"))
        if not isinstance(pod, str) or not isinstance(cgroup, str):
            raise LimitRefusedError("invalid", "pod and cgroup are strings")
        if not _is_gpu(gpu):
            raise LimitRefusedError("invalid", f"gpu is the UUID of a whole GPU, not {gpu!r}")
        return pod, cgroup, str(gpu), self._locate(self._root, cgroup, pod)


def _is_gpu(value: object) -> bool:
    return isinstance(value, str) and _GPU.fullmatch(value) is not None
