"""tools/venv finds a way to a virtual environment, or says in one line what to install."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parent.parent / "tools" / "venv"
# What a real environment's python does: here it notes what pip is asked for.
MADE = """
mkdir -p "$made/bin"
printf '#!/bin/sh\\necho pip "$@" >> "%s"\\n' "$NOTES" > "$made/bin/python"
chmod +x "$made/bin/python"
"""
PYTHON = """
case "$*" in
    -c*) exit {too_old} ;;
    --version) echo Python 3.12.0 ;;
    "-m venv "*) [ -e "$WORKS/venv" ] || exit 1; made=$3 ;;
    *) exit 1 ;;
esac
[ -z "${{made:-}}" ] || {{ {made} }}
"""
FAKES = {
    "virtualenv": '[ -e "$WORKS/virtualenv" ] || exit 1; made=$4;' + MADE,
    "uv": '[ -e "$WORKS/uv" ] || exit 1; made=$6;' + MADE,
    # Debian's python3 makes environments once python3-venv is there.
    "apt-get": 'echo apt-get "$@" >> "$NOTES"; [ -e "$WORKS/apt" ] || exit 1; : > "$WORKS/venv"',
    "id": 'cat "$WORKS/uid"',
}


class Machine:
    """A PATH of fake commands beside the few real ones that the script uses."""

    def __init__(self, root: Path) -> None:
        self.commands, self.works = root / "bin", root / "works"
        self.venv, self.notes = root / "venv", root / "notes"
        for folder in (self.commands, self.works):
            folder.mkdir()
        for name in ("sh", "cat", "chmod", "dirname", "mkdir", "rm", "touch"):
            real = shutil.which(name)
            assert real is not None
            (self.commands / name).symlink_to(real)
        for name, body in FAKES.items():
            self.add(name, body)
        (self.works / "uid").write_text("1000\n")

    def add(self, name: str, body: str) -> Path:
        fake = self.commands / name
        fake.write_text(f"#!/bin/sh\n{body}\n")
        fake.chmod(0o755)
        return fake

    def add_python(self, name: str, *, too_old: bool = False) -> Path:
        return self.add(name, PYTHON.format(too_old=int(too_old), made=MADE))

    def run(
        self, requirements: str | None = None, **env: str
    ) -> "subprocess.CompletedProcess[str]":
        env |= {"PATH": str(self.commands), "NOTES": str(self.notes), "WORKS": str(self.works)}
        return subprocess.run(
            [str(SCRIPT), str(self.venv), *([requirements] if requirements else [])],
            env=env, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("way", ["venv", "virtualenv", "uv"])
def test_the_first_method_that_works_is_used(machine: Machine, way: str) -> None:
    machine.add_python("python3")
    (machine.works / way).touch()
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert f"made with {way} for Python 3.12.0" in done.stdout
    asked = machine.notes.read_text().splitlines()
    assert [line.split()[-1] for line in asked] == [
        "requirements/build.txt",
        "requirements/dev.txt",
        ".",
    ]
    assert (machine.venv / ".complete").exists()


def test_other_requirements_are_installed_in_their_place(machine: Machine) -> None:
    machine.add_python("python3")
    (machine.works / "venv").touch()
    done = machine.run(requirements="requirements/run.txt")
    assert done.returncode == 0, done.stderr
    asked = machine.notes.read_text()
    assert "-r requirements/run.txt" in asked
    assert "dev.txt" not in asked


def test_root_installs_what_the_distribution_left_out(machine: Machine) -> None:
    machine.add_python("python3")
    (machine.works / "apt").touch()
    (machine.works / "uid").write_text("0\n")
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "made with apt" in done.stdout
    assert "python3-venv" in machine.notes.read_text()


def test_ordinary_users_get_one_line_with_what_to_install(machine: Machine) -> None:
    machine.add_python("python3")
    (machine.works / "apt").touch()
    done = machine.run()
    assert done.returncode == 1
    assert not machine.notes.exists()
    assert len(done.stderr.splitlines()) == 1
    assert "install python3-venv, virtualenv or uv" in done.stderr
    assert not machine.venv.exists()


def test_an_old_python3_is_passed_over_for_a_newer_one(machine: Machine) -> None:
    machine.add_python("python3", too_old=True)
    machine.add_python("python3.11")
    (machine.works / "venv").touch()
    assert machine.run().returncode == 0


def test_a_missing_python_is_reported_on_one_line(machine: Machine) -> None:
    machine.add_python("python3", too_old=True)
    done = machine.run()
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        (
            "tools/venv: no Python 3.10 or newer found: install one, or name it: "
            "make venv PYTHON=/path/to/python3"
        )
    ]


def test_a_named_python_that_is_too_old_is_not_replaced_in_silence(machine: Machine) -> None:
    machine.add_python("python3")
    old = machine.add_python("python2.7", too_old=True)
    (machine.works / "venv").touch()
    done = machine.run(PYTHON=str(old))
    assert done.returncode == 1
    assert f"PYTHON={old} is no Python 3.10 or newer" in done.stderr


def test_a_failed_installation_leaves_no_mark_of_success(machine: Machine) -> None:
    machine.add_python("python3")
    (machine.works / "venv").touch()
    (machine.notes).mkdir()  # so that pip, which notes what it is asked for, fails
    assert machine.run().returncode != 0
    assert not (machine.venv / ".complete").exists()


def test_a_folder_that_is_not_an_environment_is_left_alone(machine: Machine) -> None:
    machine.add_python("python3")
    (machine.works / "venv").touch()
    precious = machine.venv / "thesis.tex"
    machine.venv.mkdir()
    precious.touch()
    done = machine.run()
    assert done.returncode == 1
    assert "is no virtual environment" in done.stderr
    assert precious.exists()
