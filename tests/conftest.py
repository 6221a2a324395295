"""What every test may rely on: repeatable hypothesis, tools that are there or named, scenes."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, settings

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
TESTS = Path(__file__).parent
SLOW_FOLDERS = ("boot", "browser", "daemon", "deploy", "e2e", "health", "image", "memory")
"""Folders of tests/ that are slow as a whole."""
SLOW_FIXTURES = {"need_tool", "built", "libraries", "bench"}
"""What asks for one of these starts processes."""
AT_A_TIME = 12
"""Scenes that play side by side: each mostly waits, but has a daemon to start."""
LONGEST = 110.0
"""Seconds that a test may wait for its scene."""

# No deadlines: a busy machine is no error. In CI the same examples every time: a failure there is
# the change's own.
settings.register_profile("laptop", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("edit", settings.get_profile("laptop"), max_examples=20)
settings.load_profile("ci" if IN_CI else "laptop")


def pytest_configure(config: pytest.Config) -> None:
    """Try fewer examples in the edit loop."""
    if not IN_CI and "not slow" in config.option.markexpr:
        settings.load_profile("edit")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: one waits for scenes."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and put all scenes first and on one worker, which plays them together."""
    for item in items:
        if item.path.relative_to(TESTS).parts[0] in SLOW_FOLDERS or SLOW_FIXTURES.intersection(
            getattr(item, "fixturenames", ())
        ):
            item.add_marker(pytest.mark.slow)
        if _is_scene(item):
            item.add_marker(pytest.mark.xdist_group("scenes"))
    items.sort(key=lambda item: not _is_scene(item))


def _is_scene(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and "played" in item.fixturenames


_running: pytest.Item | None = None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    global _running  # noqa: PLW0603 - an audit hook cannot be removed, so there is one
    _running = item


def _audit(event: str, _: object) -> None:
    if (
        event in ("subprocess.Popen", "os.fork", "os.posix_spawn")
        and _running is not None
        and _running.get_closest_marker("slow") is None
    ):
        raise AssertionError(f"{_running.nodeid} starts a process: mark it slow")


sys.addaudithook(_audit)


def _find_tool(name: str) -> str:
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.is_file() else shutil.which(name)
    if found is not None:
        return found
    if IN_CI:
        pytest.fail(f"{name} is missing, and CI skips nothing: install it in .ci/run")
    pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="session")
def need_tool() -> Callable[[str], str]:
    """A function: a command's name to its path. A missing one skips on a laptop, fails in CI."""
    return _find_tool


@pytest.fixture(scope="session")
def played(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Waits for a scene to end, and raises what it raises. All begin with the first test."""
    chosen = [
        cast("Callable[[], None]", item.callspec.params["scene"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and _is_scene(item)
    ]
    running: dict[Callable[[], None], Future[None]] = {}
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        running.update((scene, pool.submit(scene)) for scene in chosen)
        yield lambda scene: running[scene].result(LONGEST)


@pytest.fixture(scope="session")
def built(
    tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str]
) -> Callable[..., Path]:
    """A function: the folder of the stub NVML library, built once however many workers ask.

    What follows are more options of the compiler.
    """
    cc = need_tool("cc")
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def build(*options: str) -> Path:
        folder = base / ("stub_nvml" + "".join(options))
        with (base / "stub_nvml.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _compile(cc, folder, options)
        return folder

    return build


def _compile(cc: str, folder: Path, options: Sequence[str]) -> None:
    draft = folder.with_suffix(".draft")
    draft.mkdir()
    soname = "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{soname}"]
    source = TESTS / "stub_nvml" / "stub_nvml.c"
    command = [cc, *flags, *options, "-o", str(draft / soname), str(source)]
    subprocess.run(command, check=True, timeout=60)
    draft.rename(folder)
