"""What a start does without, and what it imports after the first list."""

from __future__ import annotations

import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from sgpud.bridge import Timer
from sgpud.imports import IMPORTED_WITHIN, LateImports

ROOT = Path(__file__).parent.parent
PATH = ":".join([*sys.path, str(ROOT)])
WAIT = ("sgpud.core.explain.explain", "sgpud.serve.http.site", "twisted.web")
NEVER = (
    *("ssl", "email", "http.client", "urllib.request", "grpc.aio._call", "yaml", "csv"),
    *("prometheus_client", "sgpud.gpus.fake.monitor", "sgpud.cli.simulate.trace"),
)
START = """
import sys
asked = sys.argv[1:]
sys.argv[1:] = ["run", "--config", "/nonexistent", "--state-dir", "/nonexistent"]
from sgpud.__main__ import run
run()
print(*(name for name in asked if name in sys.modules))
"""
USED_LATER = """
from sgpud.imports import without_unused
with without_unused():
    import grpc
    import twisted.internet.reactor
import grpc.aio, http.cookiejar, ssl
from http.cookiejar import CookieJar
print(CookieJar.__module__, callable(grpc.aio.server), bool(ssl.SSLContext))
"""


def python(program: str, *arguments: str, flags: tuple[str, ...] = ()) -> str:
    done = subprocess.run(
        [sys.executable, *flags, "-c", program, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


@pytest.mark.slow
def test_a_start_imports_neither_what_nothing_uses_nor_what_can_wait() -> None:
    """The kubelet starts in the same moment, and admits the pods of before once."""
    assert python(START, *WAIT, *NEVER, "sgpud.app") == "sgpud.app\n"


@pytest.mark.slow
def test_omitted_modules_can_be_imported_on_demand() -> None:
    assert python(USED_LATER) == "http.cookiejar True True\n"


class Late:
    """The late imports of three modules of the standard library, not imported yet."""

    names = ("colorsys", "stringprep", "sched")

    def __init__(self) -> None:
        for name in self.names:
            sys.modules.pop(name, None)
        self.clock = Clock()
        self.imports = LateImports(Timer(self.clock), self.names)

    @property
    def done(self) -> tuple[str, ...]:
        """What is imported by now."""
        return tuple(name for name in self.names if name in sys.modules)

    @property
    def due(self) -> list[float]:
        """Seconds until the next."""
        return [call.getTime() - self.clock.seconds() for call in self.clock.getDelayedCalls()]


def test_they_are_imported_after_the_first_list() -> None:
    late = Late()
    late.imports.start()
    assert (late.done, late.due) == ((), [IMPORTED_WITHIN])
    late.imports.soon()
    assert (late.done, late.due) == ((), [0])
    late.clock.advance(0)
    late.imports.soon()
    assert (late.done, late.due) == (late.names, [])


def test_without_a_list_they_are_imported_as_well() -> None:
    late = Late()
    late.imports.start()
    late.clock.pump([IMPORTED_WITHIN, 0, 0])
    assert (late.done, late.due) == (late.names, [])


def test_what_is_imported_can_depend_on_what_is_found_then() -> None:
    late = Late()
    asked: list[tuple[str, ...]] = []

    def more() -> tuple[str, ...]:
        asked.append(late.done)
        return (late.names[2],)

    late.imports = LateImports(Timer(late.clock), late.names[:2], more)
    late.imports.start()
    assert asked == []
    late.clock.pump([IMPORTED_WITHIN, 0, 0, 0])
    assert late.done == late.names
    assert asked == [late.names[:2]]


def test_a_process_that_stops_imports_nothing_more() -> None:
    late = Late()
    late.imports.start()
    late.imports.stop()
    late.imports.soon()
    assert (late.done, late.due) == ((), [])


PROBE = """
import sys
sys.path[:] = sys.argv.pop(1).split(":")
from sgpud.gpus.nvml.probe import main
main._leave_out_util()
import pynvml
print([name for name in sys.argv[1:] if name in sys.modules])
print(pynvml.find_library("c") or "nowhere")
"""


@pytest.mark.slow
def test_the_probe_imports_little_and_ctypes_still_finds_libraries() -> None:
    never = ("pathlib", "subprocess", "shutil", "tempfile", "urllib.parse", "attrs", "twisted")
    found, library = python(PROBE, PATH, *never, flags=("-I", "-S")).splitlines()
    assert found == "[]"
    assert library == (find_library("c") or "nowhere")
