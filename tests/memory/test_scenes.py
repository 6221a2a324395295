"""Every scene, played beside the others: they mostly wait."""

from collections.abc import Callable

import pytest

from tests.memory.scenes import SCENES, Scene


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_scene(played: Callable[[Scene], None], scene: Scene) -> None:
    played(scene)
