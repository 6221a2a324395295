"""The process that calls NVML for the helper: killed and replaced when a call does not return."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import time

from sgpud.limits.helper.cgroups import LimitRefusedError
from sgpud.limits.helper.nvml import Nvml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

IDLE = 10.0
"""Seconds after the last call for which the process is kept: while it lives, the driver cannot be
unloaded."""
MOST_HUNG = 2
"""Processes that were killed and have not ended, at which no more are started."""
_END_WITHIN = 0.2
"""Seconds for a killed process to end, unless it hangs in the kernel."""
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


class Worker:
    """Calls NVML in a process of its own, which is started when it is needed."""

    def __init__(self) -> None:
        self._pid = 0
        self._to = self._from = -1
        self._rest = b""
        self._used = 0.0
        self._hung: list[int] = []

    def call(self, deadline: float, name: str, *arguments: object) -> list[int]:
        """What a method of Nvml returns; LimitRefusedError. `deadline`: in monotonic seconds."""
        self._used = time.monotonic()
        if self._used >= deadline:
            raise LimitRefusedError("hung", f"{name}: no time is left for it")
        if not self._pid:
            self._start()
        try:
            os.write(self._to, json.dumps([name, *arguments]).encode() + b"\n")
            answer = self._read(deadline)
        except OSError:
            answer = None
        if answer is None:
            self._end()
            raise LimitRefusedError("nvml", f"{name}: the process that calls NVML has ended")
        if "kind" in answer:
            if answer["kind"] in {"nvml", "unsupported"}:
                self._end()  # the driver may be another one by the next call
            raise LimitRefusedError(answer["kind"], answer["detail"])
        return list(answer["result"])

    def rest(self) -> None:
        """End the process if it has not been used for some time. To be called now and then."""
        self._reap()
        if self._pid and time.monotonic() > self._used + IDLE:
            self._end()

    def _start(self) -> None:
        self._reap()
        if len(self._hung) >= MOST_HUNG:
            raise LimitRefusedError("hung", "calls to NVML do not return: see `sgpud doctor`")
        parent = os.getpid()
        ends: list[int] = []
        try:
            ends += os.pipe()
            ends += os.pipe()
            self._pid = os.fork()
        except OSError as problem:
            for end in ends:
                os.close(end)
            reason = f"cannot start the process that calls NVML: {problem.strerror}"
            raise LimitRefusedError("nvml", reason) from None
        source, self._to, self._from, sink = ends
        if not self._pid:
            _work(parent, source, sink)
        os.close(source)
        os.close(sink)
        self._rest = b""

    def _read(self, deadline: float) -> dict[str, Any] | None:
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                self._end()
                raise LimitRefusedError("hung", "a call to NVML did not return in time")
            data = os.read(self._from, 65536)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self) -> None:
        if self._pid:
            os.close(self._to)
            os.close(self._from)
            ended = os.pidfd_open(self._pid)
            os.kill(self._pid, signal.SIGKILL)
            select.select([ended], [], [], _END_WITHIN)
            os.close(ended)
            self._hung.append(self._pid)
            self._pid = 0
        self._reap()

    def _reap(self) -> None:
        """Forget the killed processes that have ended; one in a call of the kernel may never."""
        self._hung = [pid for pid in self._hung if os.waitpid(pid, os.WNOHANG) == (0, 0)]


def _work(parent: int, source: int, sink: int) -> NoReturn:
    """Answer calls until there are no more; never returns."""
    try:
        # Of the helper's files it keeps none: not its socket, not its lock.
        os.dup2(source, 0)
        os.dup2(sink, 3)
        os.dup2(2, 1)  # what the library prints must not be mixed with the answers
        os.closerange(4, os.sysconf("SC_OPEN_MAX"))
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_NAME, b"sgpud-limits-nv", 0, 0, 0)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            _answer()
    finally:
        os._exit(0)


def _answer() -> None:
    nvml = None
    with os.fdopen(0, "rb") as lines:
        for line in lines:
            try:
                nvml = nvml or Nvml()
                name, *arguments = json.loads(line)
                result = getattr(nvml, name)(*arguments)
                answer: dict[str, object] = {"result": result or ()}
            except LimitRefusedError as refusal:
                answer = {"kind": refusal.kind, "detail": refusal.detail}
            os.write(3, json.dumps(answer).encode() + b"\n")
