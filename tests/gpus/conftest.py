"""The stub NVML library, built once, and machines that it tells of."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gpus.nvml.stub import Bench, Probe, Stub


@pytest.fixture(scope="session")
def libraries(built: Callable[..., Path]) -> dict[str, Path]:
    """The folders of the stub as a current driver has it, and as an old one."""
    return {"new": built(), "old": built("-DSTUB_OLD")}


@pytest.fixture
def stub(tmp_path: Path, libraries: dict[str, Path]) -> Stub:
    """A machine without a GPU, until the test writes some."""
    made = Stub(tmp_path / "script", libraries["new"], tmp_path / "root")
    made.root.mkdir()
    made.write()
    return made


@pytest.fixture(scope="session")
def bench() -> Bench:
    """A real reactor that the test runs."""
    return Bench()


@pytest.fixture
def probe(bench: Bench) -> Iterator[Probe]:
    made = Probe(bench)
    yield made
    if made.child is not None:
        gone: list[bool] = []
        made.child.end().addCallback(gone.append)
        bench.until(lambda: gone == [True])
