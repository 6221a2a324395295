"""Finds the cgroup and container of processes in /proc. It blocks: call it in a thread."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from sgpud.core.gpu.cgroup import mounted_in, parse_cgroup
from sgpud.core.gpu.observations import ProcessOwner

KNOWN_FOR = 60.0
"""Seconds for which a process is assumed not to change its cgroup: it could, but none does."""
FIRST_PIDS = 0xEFFFFFFC
"""The inode of the host's PID namespace (PROC_PID_INIT_INO in the kernel)."""
FIRST_CGROUPS = 0xEFFFFFFB
"""The inode of the host's cgroup namespace (PROC_CGROUP_INIT_INO)."""
ELSEWHERE = (
    "sgpud cannot see the node's processes without hostPID: true: NVML reports only those in its"
    " own PID namespace"
)
HIDDEN = (
    "other users' processes are hidden in /proc: by its mount option hidepid=, or by ProtectProc="
    " of the unit"
)
_LARGEST = 1 << 20
_PIECE = 1 << 16


@frozen
class LocatedProcesses:
    """The result of a lookup."""

    places: dict[int, ProcessOwner]
    """By process id, without those that have ended."""
    problem: str
    """Why the node's processes are unknown, or empty."""


@frozen
class _Known:
    began: str
    """When the process started, in ticks since boot: process ids are reused."""
    at: float
    place: ProcessOwner


class ProcessLocator:
    """Looks processes up, and remembers them."""

    def __init__(
        self, proc: Path, *, ours: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`ours`: the process ids belong to this process's own PID namespace, whichever that is."""
        self._proc = proc
        self._ours = ours
        self._clock = clock
        self._known: dict[int, _Known] = {}

    def look(self, pids: Iterable[int]) -> LocatedProcesses:
        """Where each of these processes is now."""
        if not self._ours and self._namespace("pid") != FIRST_PIDS:
            # A process id of another namespace may be that of another process here.
            elsewhere = ProcessOwner(problem=ELSEWHERE)
            return LocatedProcesses(dict.fromkeys(pids, elsewhere), ELSEWHERE)
        hidden = not os.access(self._proc / "1" / "stat", os.R_OK)
        private = self._namespace("cgroup") not in (FIRST_CGROUPS, None)
        known: dict[int, _Known] = {}
        places = {}
        for pid in pids:
            found = self._look(pid, private=private)
            if found is not None:
                known[pid] = found
                places[pid] = found.place
            elif hidden:
                places[pid] = ProcessOwner(problem=HIDDEN)
        self._known = known
        return LocatedProcesses(places, HIDDEN if hidden else "")

    def _look(self, pid: int, *, private: bool) -> _Known | None:
        try:
            command, began = _command(self._read(pid, "stat"))
        except (OSError, ValueError):
            return None
        now, known = self._clock(), self._known.get(pid)
        if known and known.began == began and now < known.at + KNOWN_FOR:
            return known
        return _Known(began, now, self._place(pid, command, private=private))

    def _place(self, pid: int, command: str, *, private: bool) -> ProcessOwner:
        try:
            cgroup = parse_cgroup(self._read(pid, "cgroup"), private=private)
        except OSError as error:
            return ProcessOwner(
                command=command, problem=f"its cgroup cannot be read: {error.strerror or error}"
            )
        container = ""
        if cgroup.pods:
            with suppress(OSError):
                mounted = mounted_in(self._read(pid, "mountinfo"))
                # The cgroup comes from the kernel; a container can change its mounts.
                if mounted and mounted[0] in cgroup.pods:
                    container = mounted[1]
        return ProcessOwner(
            pods=cgroup.pods,
            container=container,
            container_id=cgroup.container_id,
            cgroup=cgroup.path,
            command=command,
            own=cgroup.hidden,
        )

    def _read(self, pid: int, name: str) -> str:
        file = os.open(f"{self._proc}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(file, _PIECE)
            while len(text) < _LARGEST and (more := os.read(file, _PIECE)):
                text += more
        finally:
            os.close(file)
        return text.decode("utf-8", "replace")

    def _namespace(self, kind: str) -> int | None:
        """The inode of this process's namespace; None if it cannot be read."""
        try:
            return (self._proc / "self" / "ns" / kind).stat().st_ino
        except OSError:
            return None


def _command(stat: str) -> tuple[str, str]:
    """The name of the program and the start of a process, from /proc/PID/stat; ValueError."""
    # The name is in parentheses, and may itself contain parentheses and spaces.
    before, closed, after = stat.rpartition(")")
    fields = after.split()
    if not closed or len(fields) < 20:  # noqa: PLR2004 - the 22nd field of all is the start
        raise ValueError(stat)
    return before.partition("(")[2], fields[19]
