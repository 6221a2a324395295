"""The scenes that were chosen, side by side: they mostly wait."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import cast

import pytest

pytest.register_assert_rewrite("tests.health.scenes")
LONGEST = 110.0
"""Seconds until the last scene has passed or failed."""


@pytest.fixture(scope="session", autouse=True)
def played(request: pytest.FixtureRequest) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Waits for a scene to end, and raises what it raises; all begin with the first test here."""
    chosen = [
        cast("Callable[[], None]", item.callspec.params["scene"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and "scene" in item.fixturenames
    ]
    running: dict[Callable[[], None], Future[None]] = {}
    with ThreadPoolExecutor(max(1, min(6, len(chosen)))) as pool:
        running.update((scene, pool.submit(scene)) for scene in chosen)
        yield lambda scene: running[scene].result(LONGEST)
