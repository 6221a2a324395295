"""Every scene, played beside the others: they mostly wait."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.memory.scenes import SCENES, Scene

LONGEST = 110.0
"""Seconds until the last scene has passed or failed."""


@pytest.fixture(scope="module")
def result_of() -> Iterator[Callable[[Scene], None]]:
    """Waits for a scene to pass, and raises what it raises."""
    with ThreadPoolExecutor(len(SCENES)) as threads:
        running = {scene: threads.submit(scene) for scene in SCENES}
        yield lambda scene: running[scene].result(LONGEST)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_scene(scene: Scene, result_of: Callable[[Scene], None]) -> None:
    result_of(scene)
