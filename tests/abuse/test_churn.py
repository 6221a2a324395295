"""Promises hold while pods come and go, each for a minute, side by side."""

from collections.abc import Callable

import pytest

from tests.abuse.churn import SCENES, Scene


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_churn(played: Callable[[Scene], None], scene: Scene) -> None:
    played(scene)
