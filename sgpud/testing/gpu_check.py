"""`make gpu-check`: everything that needs a real GPU, as one report to put into docs/hardware.md.

It shares the GPUs of this machine with a stand-in kubelet only, in a folder of its own: no pod gets
them, no setting of theirs changes, and no work runs on them. A kubelet and an sgpud of this machine
are left alone. The exit status is 0 if all passed, 1 if not, 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sgpud import __version__
from sgpud.testing.local_node import WITHIN, LocalNode

RESOURCE = "deepomatic.com/shared-gpu"
NO_GPU = 2
_PROBED_WITHIN = 30.0
"""Seconds for the first NVML start: without persistence mode the driver initialises each GPU."""
_CONFIG = """\
[sharing]
resource = "deepomatic.com/shared-gpu"
duplication_factor = {shares}

[container]
# Environment variables alone: the stand-in kubelet starts no container.
method = "nvidia-runtime"

[kubelet]
pod_resources = "{folder}/podresources.sock"
"""
_SHARES, _FEWER = 10, 5


class Report:
    """Lines for docs/hardware.md, and whether all passed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.passed = True

    def say(self, text: str) -> None:
        """Add a line and show it."""
        self.lines.append(text)
        print(text, flush=True)

    def check(self, name: str, call: Callable[[], str]) -> bool:
        """Add the result of one check, and return whether it passed: an exception is a failure."""
        try:
            self.say(f"- {name}: {call()}")
        except Exception as error:  # noqa: BLE001 - a report has to go on, whatever failed
            self.passed = False
            self.say(f"- **{name}: failed**: {type(error).__name__}: {error}")
            return False
        return True


class CheckFailedError(Exception):
    """Something was not as it should be."""


def main(words: Sequence[str] | None = None) -> int:
    """Check, print the report, and write it to a file."""
    parser = argparse.ArgumentParser(prog="make gpu-check", description=__doc__)
    parser.add_argument("--report", type=Path, default=Path("build/gpu-check.md"))
    parser.add_argument("--without-suite", action="store_true", help="leave the tests out")
    asked = parser.parse_args(words)
    listed = _sgpud("gpus", "--json", "--config", os.devnull)
    gpus = json.loads(listed.stdout)["gpus"] if listed.stdout else []
    if not gpus:
        print(
            f"no GPU that can be shared on this machine: {listed.stderr.strip() or 'none listed'}"
        )
        return NO_GPU
    report = Report()
    _machine(report, json.loads(listed.stdout))
    with tempfile.TemporaryDirectory(prefix="sgpud-gpu-check-") as name:
        folder = Path(name)
        node = LocalNode(folder, _CONFIG.format(shares=_SHARES, folder=folder), None)
        _daemon(report, node, gpus)
    if not asked.without_suite:
        report.check("contract suite (tests/gpus/test_contract.py)", _suite)
    report.say("")
    report.say("All passed." if report.passed else "**Not all passed.**")
    asked.report.parent.mkdir(parents=True, exist_ok=True)
    asked.report.write_text("\n".join(report.lines) + "\n", encoding="utf-8")
    print(f"\nwritten to {asked.report}: compare it with docs/hardware.md, and add it there")
    return 0 if report.passed else 1


def _machine(report: Report, listed: dict[str, Any]) -> None:
    products = [gpu["product"] for gpu in listed["gpus"]]
    names = ", ".join(f"{products.count(one)} x {one}" for one in dict.fromkeys(products))
    report.say(f"## {names}, driver {listed['driver']}")
    report.say("")
    report.say(f"{time.strftime('%Y-%m-%d')}, sgpud {__version__} ({_commit()}), {_system()},")
    report.say(
        f"Linux {platform.release()}, {platform.machine()}, Python {platform.python_version()}"
    )
    report.say("")
    for gpu in listed["gpus"]:
        compute = ".".join(map(str, gpu["compute"] or ())) or "unknown"
        memory = "unknown" if gpu["memory"] is None else f"{gpu['memory'] / 2**30:.1f} GiB"
        numa = "none" if gpu["numa"] is None else gpu["numa"]
        report.say(
            f"- GPU {gpu['index']}: {gpu['product']}, {memory}, compute {compute}, NUMA node {numa}"
        )


def _daemon(report: Report, node: LocalNode, gpus: Sequence[dict[str, Any]]) -> None:
    uuids = {gpu["uuid"] for gpu in gpus}
    kubelet = node.kubelet
    began = time.monotonic()

    def listed() -> str:
        kubelet.next_registration(timeout=_PROBED_WITHIN)
        kubelet.wait_for(
            lambda view: view.allocatable(RESOURCE) == _SHARES * len(gpus), _PROBED_WITHIN
        )
        return (
            f"{_SHARES} shares of each GPU allocatable {time.monotonic() - began:.2f} s after start"
        )

    def allocated() -> str:
        container = kubelet.admit("uid", "check", "pod", "main", {RESOURCE: len(gpus)})
        given = set(container.envs["SGPUD_GPU_UUIDS"].split(","))
        _expect(given == uuids, f"one share of each GPU was asked for, {sorted(given)} given")
        return "one container with a share of each GPU"

    def seen() -> str:
        status = json.loads(node.command("status", "--json"))
        healths = {gpu["uuid"]: gpu["health"] for gpu in status["gpus"]}
        _expect(set(healths) >= uuids, f"status lists {sorted(healths)}")
        sick = {uuid: state for uuid, state in healths.items() if state != "healthy"}
        _expect(not sick, f"not healthy: {sick}")
        return "every GPU healthy"

    def reloaded() -> str:
        node.configure(_CONFIG.format(shares=_FEWER, folder=node.folder))
        node.command("reload")
        kubelet.wait_for(lambda view: view.allocatable(RESOURCE) == _FEWER * len(gpus), WITHIN)
        held = set(kubelet.container("uid", "main").ids[RESOURCE])
        listed_now = kubelet.devices(RESOURCE)
        _expect(
            all(listed_now[share].health == "Healthy" for share in held),
            "a held share is not listed Healthy",
        )
        _expect(len(kubelet.registrations) == 1, "it registered again")
        return f"{_FEWER} shares of each GPU, on the same stream, the held ones among them"

    with node:
        if report.check("start", listed):
            report.check("Allocate", allocated)
            report.check("status", seen)
            report.check("reload", reloaded)

        def stopped() -> str:
            status = node.stop()
            _expect(status == 0, f"exit status {status}")
            return "exit status 0"

        report.check("stop", stopped)
        report.check("log", lambda: _worth_reading(node.log.read_text()))


def _worth_reading(log: str) -> str:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    found = [line["message"] for line in lines if line["level"] not in {"info", "debug"}]
    return "no warning" if not found else f"{len(found)} warnings: {' / '.join(found[:5])}"


def _suite() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/gpus/test_contract.py"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    last = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1]
    _expect(done.returncode == 0 and "skipped" not in last, last)
    return last


def _expect(true: bool, otherwise: str) -> None:  # noqa: FBT001 - as an assertion reads
    if not true:
        raise CheckFailedError(otherwise)


def _sgpud(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sgpud", *words],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "no commit"
    done = subprocess.run(
        [git, "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "no commit"


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


if __name__ == "__main__":
    sys.exit(main())
