"""What the daemon does over a minute. The waits are real, and side by side."""

from collections.abc import Callable

import pytest

from tests.daemon import freeing, leaving, stalling
from tests.daemon.situations import Situation

SITUATIONS = (*leaving.SITUATIONS, *freeing.SITUATIONS, *stalling.SITUATIONS)


@pytest.mark.parametrize("scene", SITUATIONS, ids=lambda scene: scene.__name__)
def test_over_time(played: Callable[[Situation], None], scene: Situation) -> None:
    played(scene)
