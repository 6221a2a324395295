"""Words that people read."""

import pytest

from sgpud.core.text import several


@pytest.mark.parametrize(("count", "text"), [(0, "0 GPUs"), (1, "1 GPU"), (2, "2 GPUs")])
def test_one_is_singular(count: int, text: str) -> None:
    assert several(count, "GPU") == text
