"""Each scripted fault against the stand-in kubelet, from the daemon's start to the way back."""

from collections.abc import Callable

import pytest

from tests.health.scenes import SCENES, Scene


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_scene(played: Callable[[Scene], None], scene: Scene) -> None:
    played(scene)
