"""The stub NVML library, built once, and machines that it tells of."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gpus.nvml.stub import Bench, Probe, Stub

SOURCE = Path(__file__).parent.parent / "stub_nvml" / "stub_nvml.c"
SONAME = "libnvidia-ml.so.1"


def _build(folder: Path, cc: str, *options: str) -> Path:
    folder.mkdir()
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{SONAME}"]
    command = [cc, *flags, *options, "-o", str(folder / SONAME), str(SOURCE)]
    subprocess.run(command, check=True, timeout=60)
    return folder


@pytest.fixture(scope="session")
def libraries(
    tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str]
) -> dict[str, Path]:
    """The folders of the stub as a current driver has it, and as an old one."""
    cc = need_tool("cc")
    base = tmp_path_factory.mktemp("stub_nvml")
    return {"new": _build(base / "new", cc), "old": _build(base / "old", cc, "-DSTUB_OLD")}


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
