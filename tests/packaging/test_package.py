"""The Debian package says what the project says: versions, bounds, manuals, completions."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import sgpud
from sgpud.cli.main import command_line
from sgpud.config.schema.kinds import Key, ListOf, Table
from sgpud.config.schema.sections import ROOT
from tools.manuals.__main__ import main
from tools.manuals.commands import read

TOP = Path(__file__).parents[2]
NAMES = {"attrs": "attr", "prometheus_client": "prometheus-client", "PyYAML": "yaml"}
BOUNDS = {"protobuf": "3.21"}
"""Debian counts protobuf as its C++ library: Python's 4.21 is 3.21 there."""
ELSEWHERE = {"nvidia-ml-py", "tomli"}
"""Carried in the package; in Python itself from 3.11 on."""
TYPED = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PROMPT= COLUMNS=200 fpath=(${(q)1} \$fpath); autoload -U compinit; compinit -u -D
    show() { print -r -- \"<\$BUFFER>\"@'end'@; BUFFER= }; zle -N show; bindkey '^X' show
    print @'end'@"
zpty -r shell said '*@end@'
for line in "${@:2}"; do
    zpty -w -n shell "sgpud $line"$'\t\x18'
    zpty -r shell said '*@end@'
    print -rn -- "$said"
done
zpty -d shell
"""
"""Types each argument after the first into an interactive zsh that finds completions in the first,
presses Tab, and prints what the shell shows, the line in <>, and @end@."""


def test_the_package_has_the_version_of_the_project() -> None:
    first = (TOP / "debian/changelog").read_text().split("\n", 1)[0]
    assert first.startswith(f"sgpud ({sgpud.__version__}) ")


def test_the_package_depends_on_what_the_project_depends_on() -> None:
    # Debian's python3-twisted depends on what the extra "tls" brings elsewhere.
    project = (TOP / "pyproject.toml").read_text()
    section = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert section is not None
    wanted = {
        f"python3-{NAMES.get(name, name)} (>= {BOUNDS.get(name, bound)})"
        for name, bound in re.findall(r'"([\w-]+)(?:\[tls\])?>=([\d.]+)', section[1])
        if name not in ELSEWHERE
    }
    control = (TOP / "debian/control").read_text().partition("\nDepends:\n")[2]
    assert set(re.findall(r"^ (python3-.+),$", control, re.MULTILINE)) == wanted


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of manuals and completions."""
    folder = tmp_path_factory.mktemp("manuals")
    main(folder)
    return folder


def test_the_manual_has_every_command_and_option(made: Path) -> None:
    page = (made / "sgpud.8").read_text()
    for command in read(command_line())[1:]:
        assert f'.SS "{command.name}"' in page
        for option in command.options:
            for flag in option.flags:
                assert flag.replace("-", "\\-") in page or flag in {"-h", "--help"}
    assert "@" not in re.sub(r"`[^`]*`", "", page.replace("\\(at", ""))


def test_the_manual_of_the_file_has_every_key(made: Path) -> None:
    page = (made / "sgpud.toml.5").read_text()

    def keys(key: Key) -> tuple[Key, ...]:
        kind = key.kind.element if isinstance(key.kind, ListOf) else key.kind
        return kind.keys if isinstance(kind, Table) else ()

    for section in ROOT.keys:
        for key in keys(section):
            assert f'.SS "{key.name}"' in page


@pytest.fixture
def answering(tmp_path: Path) -> Path:
    """A folder with a command that answers as sgpud does where a daemon runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "sgpud"
    command.write_text(
        '#!/bin/sh\necho trouble >&2\n[ "$1 $2" = "status --names" ] || exit 1\n'
        "case $3 in gpus) printf '0\\n1\\nGPU-a\\nGPU-b\\n' ;; pods) echo prod/train ;; esac\n"
    )
    command.chmod(0o755)
    return folder


def test_bash_completes_commands_options_and_choices(
    made: Path, answering: Path, need_tool: Callable[[str], str]
) -> None:
    def offered(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in ("sgpud", *words))
        program = (
            f"source {made / 'sgpud'}; COMP_WORDS=({line}); COMP_CWORD={len(words)};"
            " _sgpud; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(
            [need_tool("bash"), "--norc", "-c", program],
            capture_output=True, text=True, timeout=30, check=True,
            env={"PATH": f"{answering}:/usr/bin:/bin"},
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.split()

    assert set(offered("")) == {command.name for command in read(command_line())[1:]}
    assert offered("run", "--str") == ["--strict"]
    assert offered("explain", "prod/t") == ["prod/train"]
    assert offered("cordon", "") == ["0", "1", "GPU-a", "GPU-b"]
    assert offered("explain", "GPU-b") == ["GPU-b"]
    (answering / "sgpud").unlink()
    assert offered("cordon", "") == []
    assert offered("run", "--config", str(made / "sgpud.t")) == [str(made / "sgpud.toml.5")]


def test_zsh_completes_commands_options_and_files(
    made: Path, answering: Path, tmp_path: Path, need_tool: Callable[[str], str]
) -> None:
    config = f"run --config {made / 'sgpud.t'}"
    typed = ("", "relo", "run --stri", config, "explain prod/t", "cordon GPU-b", "heal absent")
    done = subprocess.run(
        [need_tool("zsh"), "-f", "-c", TYPED, "zsh", made, *typed],
        capture_output=True, text=True, timeout=100, check=True, cwd=tmp_path,
        env={"PATH": f"{answering}:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(tmp_path)},
    )  # fmt: skip
    offered, *completed = done.stdout.split("@end@")[: len(typed)]
    listed = re.findall(r"^([\w-]+) +-- ", offered, re.MULTILINE)
    assert set(listed) == {command.name for command in read(command_line())[1:]}
    config = f"run --config {made / 'sgpud.toml.5'}"
    known = ("explain prod/train", "cordon GPU-b")
    for line, whole in zip(
        completed, ("reload", "run --strict", config, *known, "heal absent"), strict=True
    ):
        assert line.endswith((f"<sgpud {whole} >", f"<sgpud {whole}>"))
