"""`python -m benchmarks`: measures sgpud and its floors, and prints them side by side.

The exit status is 0 when everything was measured, whatever the numbers, and 1 otherwise.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from benchmarks import report
from benchmarks.calls import allocate, prefer, storm
from benchmarks.dra import dra
from benchmarks.eyes import eyes
from benchmarks.health import health
from benchmarks.imports import imports
from benchmarks.limits import limits
from benchmarks.memory import memory
from benchmarks.report import NotMeasuredError, Number
from benchmarks.resources import probe, resources
from benchmarks.restarts import restart, stopping, takeover
from benchmarks.startup import startup


class Measurement(Protocol):
    """A part of the run: it yields its numbers as it has them."""

    def __call__(self, *, quick: bool) -> Iterator[Number]:
        """With `quick`, fewer samples."""


MEASUREMENTS: Mapping[str, Measurement] = {
    "imports": imports,
    "startup": startup,
    "allocate": allocate,
    "storm": storm,
    "prefer": prefer,
    "memory": memory,
    "restart": restart,
    "takeover": takeover,
    "stopping": stopping,
    "resources": resources,
    "probe": probe,
    "eyes": eyes,
    "health": health,
    "limits": limits,
    "dra": dra,
}


def main() -> int:
    """Measure, print, and say how it went."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples, in under a minute")
    parser.add_argument(
        "--only",
        choices=MEASUREMENTS,
        action="append",
        metavar="NAME",
        help=f"one part: {', '.join(MEASUREMENTS)}; may be repeated",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    given = parser.parse_args()
    sys.setswitchinterval(0.0005)  # the stand-in kubelet's threads live here: none waits long
    machine = _machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    print(report.HEAD, flush=True)
    began = time.monotonic()
    numbers: list[Number] = []
    failures: dict[str, str] = {}
    for name in given.only or MEASUREMENTS:
        problem = _measure(MEASUREMENTS[name], numbers, quick=given.quick)
        if problem:
            failures[name] = problem
            print(f"{name}: not measured: {problem}", flush=True)
    missed = sum(number.reached is False for number in numbers)
    aimed = sum(number.target is not None for number in numbers)
    print(f"{aimed - missed} of {aimed} targets reached, in {time.monotonic() - began:.0f} s")
    if given.json:
        document = {"machine": machine, "numbers": report.documents(numbers), "failures": failures}
        given.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if failures else 0


def _measure(measurement: Measurement, numbers: list[Number], *, quick: bool) -> str:
    """Add what is measured to `numbers` and print it; why it could not be, or empty."""
    try:
        for number in measurement(quick=quick):
            numbers.append(number)
            print(report.line(number), flush=True)
    except (NotMeasuredError, TimeoutError, OSError, LookupError) as problem:
        return str(problem) or repr(problem)
    return ""


def _machine() -> dict[str, str]:
    packages = ("twisted", "grpcio", "protobuf")
    return {
        "Python": platform.python_version(),
        **{name: version(name) for name in packages},
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


if __name__ == "__main__":
    sys.exit(main())
