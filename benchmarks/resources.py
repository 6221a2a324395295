"""Memory and processor time: of the daemon and its probe, beside the floor's and the skeleton's."""

import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.client import Job, Side, allocates, call, prefers, processes
from benchmarks.machine import Memory, children, memory, processor_seconds, wake_ups
from benchmarks.node import FLOOR, RESOURCE, Node, Process
from benchmarks.report import NotMeasuredError, Number, Target

SETTLE = 2.0
"""Seconds after its start that a process counts as idle."""
WATCHED = 10.0
"""Seconds for which idle processor time is counted."""
RELOADS_APART = 0.1
"""Seconds between two reloads."""
STUB = Path(__file__).parent.parent / "tests" / "stub_nvml" / "stub_nvml.c"
SONAME = "libnvidia-ml.so.1"
_GPU = """\
gpu GPU-{index:08x}-1111-2222-3333-000000000000
  name NVIDIA A100-SXM4-40GB
  minor {index}
  pci 00000000:{bus:02X}:00.0
  memory 42949672960 671088640
  compute 8 0
"""


def resources(*, quick: bool) -> Iterator[Number]:
    """Memory idle and after load, and processor time when idle, at 8 x 100."""
    with Node(8, 100) as node:
        plain = node.floor()
        node.registered(FLOOR, plain.began)
        daemon = node.sgpud()
        node.registered(RESOURCE, daemon.began)
        bare = node.skeleton()
        bare.said("listening")
        threading.Event().wait(SETTLE)
        skeleton, floor = memory(bare.pid), memory(plain.pid)
        yield from _memory("idle", memory(daemon.pid), floor, skeleton, 4.0)
        yield from _idle(daemon, plain, bare)
        _load(node, daemon, quick=quick)
        yield from _memory("after load", memory(daemon.pid), memory(plain.pid), skeleton, 8.0)


def probe(*, quick: bool) -> Iterator[Number]:
    """Memory of the probe on the stub NVML, with eight GPUs, idle and after 20 reloads."""
    with Node(8, 100) as node:
        daemon = node.sgpud_on_nvml(stub_library(node))
        node.registered(RESOURCE, daemon.began)
        found = children(daemon.pid)
        if len(found) != 1:
            raise NotMeasuredError(f"the daemon has {len(found)} child processes, not its probe")
        threading.Event().wait(SETTLE)
        yield _small("probe: RSS idle", memory(found[0]).rss)
        pids = {"daemon": daemon.pid, "probe": found[0]}
        used = {name: (processor_seconds(pid), wake_ups(pid)) for name, pid in pids.items()}
        threading.Event().wait(WATCHED)
        for name, (seconds, woken) in used.items():
            part = (processor_seconds(pids[name]) - seconds) / WATCHED * 100
            yield Number(f"on NVML: {name}, idle, of one core", "%", part)
            wakes = (wake_ups(pids[name]) - woken) / WATCHED
            yield Number(f"on NVML: {name}, idle wake-ups per second", "", wakes)
        _reload(node, daemon, 6 if quick else 20)
        yield _small("probe: RSS after load", memory(found[0]).rss)


def idlers(stack: ExitStack, count: int) -> list[int]:
    """Start so many processes that do nothing until `stack` ends; their process ids."""
    cat = shutil.which("cat") or "/bin/cat"
    made = (
        subprocess.Popen([cat], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for _ in range(count)
    )
    return [stack.enter_context(process).pid for process in made]


def stub_library(
    node: Node, pids: Callable[[int], Sequence[int]] = lambda _: (), word: str = "process"
) -> dict[str, str]:
    """Build the stub NVML for a node; the environment of what is to load it.

    `pids` gives the processes on each GPU. With another `word` than "process" the stub reads as
    many lines, and knows of no process.
    """
    cc = shutil.which("cc")
    if cc is None or not STUB.exists():
        raise NotMeasuredError("no C compiler, or no tests/stub_nvml, to build the stub NVML with")
    library = node.folder / SONAME
    flags = ["-shared", "-fPIC", "-O1", f"-Wl,-soname,{SONAME}"]
    subprocess.run([cc, *flags, "-o", str(library), str(STUB)], check=True, timeout=60)
    lines = ["driver 580.12", "nvml 12.580.12"]
    for index in range(node.gpus):
        lines.append(_GPU.format(index=index, bus=index + 1).rstrip())
        lines += [f"  {word} {pid} {2**30} 3 c" for pid in pids(index)]
    script = node.folder / "script"
    script.write_text("\n".join(lines) + "\n")
    return {"LD_LIBRARY_PATH": str(node.folder), "STUB_NVML": str(script)}


def _memory(
    when: str, ours: Memory, floor: Memory, skeleton: Memory, over: float
) -> Iterator[Number]:
    target = Target(skeleton.rss + over, f"skeleton + {over:g} MiB")
    yield Number(f"RSS {when}", "MiB", ours.rss, floor.rss, skeleton.rss, target)
    yield Number(f"  PSS {when}", "MiB", ours.pss, floor.pss, skeleton.pss)
    yield Number(f"  USS {when}", "MiB", ours.uss, floor.uss, skeleton.uss)


def _small(name: str, value: float) -> Number:
    return Number(name, "MiB", value, target=Target(14, "14 MiB"))


def _idle(daemon: Process, plain: Process, bare: Process) -> Iterator[Number]:
    pids = (daemon.pid, plain.pid, bare.pid)
    before, woken = [processor_seconds(pid) for pid in pids], [wake_ups(pid) for pid in pids]
    threading.Event().wait(WATCHED)
    used = [processor_seconds(pid) - was for pid, was in zip(pids, before, strict=True)]
    wakes = [(wake_ups(pid) - was) / WATCHED for pid, was in zip(pids, woken, strict=True)]
    ours, floor, skeleton = (seconds / WATCHED * 100 for seconds in used)
    target = Target(floor + 0.1, "floor + 0.1 %")
    yield Number("idle processor, of one core", "%", ours, floor, skeleton, target)
    yield Number("idle wake-ups per second", "", wakes[0], wakes[1], wakes[2])


def _load(node: Node, daemon: Process, *, quick: bool) -> None:
    """Allocations by 16 callers, preferences, reloads and kubelet restarts."""
    # Half of the shares: what is held would not be withdrawn by a reload.
    ids = {resource: node.ids(resource)[: node.shares * 4] for resource in (FLOOR, RESOURCE)}
    jobs = [
        Job(method, {name: Side(node.socket(name), make(ids[name])) for name in ids}, calls, 1, 16)
        for method, make, calls in (
            ("Allocate", allocates, 3200),
            ("GetPreferredAllocation", lambda ids: prefers(ids, 8), 800),
        )
    ]
    with processes() as pool:
        for job in jobs:
            pool.submit(call, job).result()
    _reload(node, daemon, 6 if quick else 20)
    for _ in range(3 if quick else 10):
        began = time.monotonic()
        node.kubelet.restart()
        node.registered(RESOURCE, began)
    threading.Event().wait(SETTLE)


def _reload(node: Node, daemon: Process, times: int) -> None:
    for turn in range(times):
        node.configure(node.shares - 10 * (turn % 2 + 1))
        daemon.send(signal.SIGHUP)
        threading.Event().wait(RELOADS_APART)
