"""The promises hold for half a minute of everything at once; `make soak` is the long run."""

import pytest

from tests.abuse.soak import soak


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_promise_is_broken_while_everything_happens() -> None:
    made = soak(30.0, seed=1)
    assert made.checker.violations == [], made.report()
    assert made.counts["containers started"] > 10, made.report()
