"""A healthy node for each test, to break."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.cli.doctor.nodes import FakeNode
from tests.surroundings import short_folder


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with ExitStack() as stack, short_folder() as folder:
        yield FakeNode(folder, stack).healthy()
