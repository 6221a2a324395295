"""What the daemon does over a minute. The waits are real, and side by side."""

from collections.abc import Callable

import pytest

from tests.daemon import freeing, leaving, stalling
from tests.daemon.situations import Situation

SITUATIONS = (*leaving.SITUATIONS, *freeing.SITUATIONS, *stalling.SITUATIONS)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.__name__)
def test_over_time(result_of: Callable[[Situation], None], situation: Situation) -> None:
    result_of(situation)
