"""What every test may rely on: repeatable hypothesis, tools that are there or named."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")

# No deadlines: a busy machine is no error. In CI the same examples every time: a failure there is
# the change's own.
settings.register_profile("laptop", deadline=None)
settings.register_profile(
    "ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if IN_CI else "laptop")


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
