"""What tests of health share."""

import pytest

pytest.register_assert_rewrite("tests.health.scenes")
