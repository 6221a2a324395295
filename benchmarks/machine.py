"""What Linux says of a process: its memory and its processor time."""

import time
from pathlib import Path

from attrs import frozen

from benchmarks.report import NotMeasuredError


@frozen
class Memory:
    """Memory of one process, in MiB."""

    rss: float
    """Resident, pages shared with others included."""
    pss: float
    """Resident, shared pages divided among those that share them."""
    uss: float
    """Resident, its own alone."""


def memory(pid: int) -> Memory:
    """A process's memory now."""
    process = Path(f"/proc/{pid}")
    status = _fields(process / "status")
    rollup = _fields(process / "smaps_rollup")
    return Memory(status["VmRSS"], rollup["Pss"], rollup["Private_Clean"] + rollup["Private_Dirty"])


def processor_seconds(pid: int) -> float:
    """The processor time of all of a process's threads so far, user and system.

    From the process's own clock, since utime and stime in /proc count hundredths of a second: one
    of those in ten seconds is the whole of what is to be told here.
    """
    return time.clock_gettime(((~pid) << 3) | 2)  # clock_getcpuclockid(3)


def wake_ups(pid: int) -> int:
    """How often threads of a process have begun to wait, which they end by waking up."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        words = (task / "status").read_text().split()
        total += int(words[words.index("voluntary_ctxt_switches:") + 1])
    return total


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still are."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def _fields(file: Path) -> dict[str, float]:
    """The lines `Name:  123 kB` of a file of /proc, in MiB."""
    try:
        rows = [row.split() for row in file.read_text().splitlines()]
    except OSError as problem:
        raise NotMeasuredError(f"cannot read {file}: {problem}") from problem
    return {row[0][:-1]: int(row[1]) / 1024 for row in rows if row[-1] == "kB"}
