"""The tree itself: what its parts say of each other agrees, and the rules of the house hold."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sgpud

ROOT = Path(__file__).parents[2]
OURS = ("sgpud", "tests", "benchmarks")
TEXTS = {".cfg", ".in", ".md", ".proto", ".py", ".pyi", ".sh", ".toml", ".txt", ".yaml", ".yml", ""}
MOST_LINES = 450
MOST_MODULES = 14
"""In one folder of sgpud."""


def python_files(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (p for p in (ROOT / folder).rglob("*.py") if not p.stem.endswith("_pb2"))


def text_files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [n for n in folders if n == ".ci" or n[0] not in "._"]
        yield from (Path(folder, n) for n in names if Path(n).suffix in TEXTS)


def found(pattern: str, files: Iterator[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_pyproject_changelog_and_package_name_one_version() -> None:
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    change = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert project is not None
    assert change is not None
    assert project[1] == change[1] == sgpud.__version__


def test_nothing_sleeps() -> None:
    assert found(r"\bslee[p]\(", python_files("sgpud", "tests")) == []


def test_no_test_imports_from_another_test() -> None:
    pattern = r"^\s*(from|import) tests\b.*\btest_"
    assert found(pattern, python_files("tests", "benchmarks", "tools")) == []


def test_there_are_no_todo_comments() -> None:
    assert found(r"TOD[O]|FIXM[E]|XX[X]|NotImplemente[d]Error", python_files(*OURS)) == []


def test_modules_are_short() -> None:
    lengths = {p.relative_to(ROOT): len(p.read_text().splitlines()) for p in python_files("sgpud")}
    assert {path: n for path, n in lengths.items() if n > MOST_LINES} == {}


def test_folders_hold_few_modules() -> None:
    modules = [p.parent for p in python_files("sgpud") if p.stem != "__init__"]
    crowded = {str(folder): modules.count(folder) for folder in modules}
    assert {folder: n for folder, n in crowded.items() if n > MOST_MODULES} == {}


def test_no_two_classes_share_a_name() -> None:
    pattern = re.compile(r"^class (\w+)", re.MULTILINE)
    names = [name for path in python_files("sgpud") for name in pattern.findall(path.read_text())]
    assert {name for name in names if names.count(name) > 1} == set()


def test_no_file_names_the_machine_it_was_written_on() -> None:
    assert found(rf"(?<!\w){re.escape(str(ROOT))}/|/root[/]|[.]pyen[v]", text_files()) == []


@pytest.mark.parametrize("pins", ["build", "debian", "dev", "package", "run"])
def test_every_pin_has_one_version_and_hashes_and_names_no_index(pins: str) -> None:
    text = (ROOT / "requirements" / f"{pins}.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert entries != [""]
    entry = re.compile(
        r"[a-z0-9-]+==[0-9.]+( ; [a-z_]+ .+?)? \\\n"
        r"( +--hash=sha256:[0-9a-f]{64}( \\\n)?)+"
    )
    assert [each for each in entries if not entry.fullmatch(each)] == []


def test_what_sgpud_imports_at_run_time_is_pinned() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    section = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert section is not None
    wanted = {
        name.lower().replace("_", "-")
        for name in re.findall(r'"([\w-]+)(?:\[tls\])?>=', section[1])
    }
    assert wanted == {
        *("attrs", "grpcio", "nvidia-ml-py", "prometheus-client"),
        *("protobuf", "pyyaml", "sdnotify", "tomli", "twisted"),
    }
    entries = re.compile(r"^([\w-]+)==(\S+)", re.MULTILINE)
    dev, run = (
        dict(entries.findall((ROOT / f"requirements/{name}.txt").read_text()))
        for name in ("dev", "run")
    )
    assert wanted <= set(run)
    # `make demo` runs the versions that the tests have seen, and brings no tool along.
    assert run.items() <= dev.items()
    assert not run.keys() & {"pytest", "mypy", "ruff", "hypothesis"}


def test_make_alone_names_every_target(need_tool: Callable[[str], str]) -> None:
    done = subprocess.run(
        [need_tool("make"), "--no-print-directory"],
        cwd=ROOT, env={"PATH": os.environ["PATH"]},
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert [line.split()[1] for line in done.stdout.splitlines()] == phony[1].split()


@pytest.mark.skipif(
    os.environ.get("SGPUD_STACK") == "debian-12", reason="Debian 12 has no import-linter"
)
def test_imports_point_one_way(need_tool: Callable[[str], str]) -> None:
    done = subprocess.run(
        [need_tool("lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_package_itself_imports_nothing() -> None:
    program = (
        "import sys; before = set(sys.modules); import sgpud; print(set(sys.modules) - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.strip() == "{'sgpud'}"
