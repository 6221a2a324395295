"""What a start imports: how many modules, which are the dearest, and what each library costs."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from attrs import frozen

from benchmarks.report import NotMeasuredError, Number, median

DEAREST = 10
"""Modules that are listed, by the time of their own code."""
_TOLD = "; print(len(sys.modules), open('/proc/self/status').read().split('VmRSS:')[1].split()[0])"
_LIBRARIES = {
    "Python": "import sys",
    "Twisted": "import sys; sys.modules['OpenSSL'] = None; "
    "import twisted.internet.inotify, twisted.internet.reactor, twisted.logger",
    "gRPC": "import sys, grpc",
    "protobuf": "import sys, sgpud.kubelet.api.deviceplugin_pb2",
    "attrs": "import sys, attrs",
}
_DAEMON = (
    "import sys; sys.modules['OpenSSL'] = None; import sgpud.cli.main; "
    "from sgpud.imports import without_unused; without = without_unused(); without.__enter__(); "
    "import sgpud.service"
)
_SKELETON = "import sys, benchmarks.skeleton"
_FLOOR = "import sys, benchmarks.floor"


@frozen
class Cost:
    """What a program takes until it has imported everything."""

    cpu: float
    """Milliseconds, user and system."""
    modules: int
    rss: float
    """MiB."""


def imports(*, quick: bool) -> Iterator[Number]:
    """Modules, processor time and memory of the imports, side by side, and the dearest modules."""
    programs = {"sgpud": _DAEMON, "skeleton": _SKELETON, "floor": _FLOOR, **_LIBRARIES}
    costs: dict[str, list[Cost]] = {name: [] for name in programs}
    for _ in range(1 + (5 if quick else 15)):
        for name, program in programs.items():
            costs[name].append(_cost(program))
    for what, unit in (("modules", ""), ("cpu", "ms"), ("rss", "MiB")):
        # The first of each only warms the file cache up.
        found = {
            name: median([getattr(cost, what) for cost in each[1:]]) for name, each in costs.items()
        }
        title = {"modules": "modules", "cpu": "processor time", "rss": "RSS"}[what]
        yield Number(
            f"imports of a start: {title}",
            unit,
            found["sgpud"],
            found["floor"],
            found["skeleton"],
        )
        if what != "modules":
            alone = found["Python"]
            yield Number(f"  Python alone: {title}", unit, alone)
            for name in list(_LIBRARIES)[1:]:
                yield Number(f"  {name}, beyond Python: {title}", unit, found[name] - alone)
    for name, milliseconds in _dearest(5 if quick else 15):
        yield Number(f"  {name}: its own code, least of all runs", "ms", milliseconds)


def _cost(program: str) -> Cost:
    process = subprocess.Popen([sys.executable, "-c", program + _TOLD], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as output:
        words = output.read().split()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or len(words) != 2:  # noqa: PLR2004 - both that it prints
        raise NotMeasuredError(f"{program!r} ended with {process.returncode}")
    cpu = (usage.ru_utime + usage.ru_stime) * 1000
    return Cost(cpu, int(words[0]), int(words[1]) / 1024)


def _dearest(runs: int) -> Sequence[tuple[str, float]]:
    """The modules whose own code takes longest in a start, with milliseconds."""
    least: dict[str, float] = {}
    for _ in range(runs):
        words = [sys.executable, "-X", "importtime", "-c", _DAEMON]
        said = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=True).stderr
        for line in said.splitlines():
            own, _, rest = line.removeprefix("import time:").partition("|")
            if own.strip().isdecimal():
                name = rest.rpartition("|")[2].strip()
                least[name] = min(int(own) / 1000, least.get(name, float("inf")))
    return sorted(least.items(), key=lambda one: -one[1])[:DEAREST]
