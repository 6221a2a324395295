"""The commands: exit statuses, what they print, as text and as JSON, and what they import."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from sgpud import __version__
from sgpud.cli.main import main
from sgpud.serve.control.client import CONTROL
from tests.surroundings import WITHIN, short_folder

ROOT = Path(__file__).parents[2]
GOOD = "[sharing]\nduplication_factor = 8\n"
BAD = "[sharing]\nduplication_facto = 3\n\n[gpus]\nallow = 7\n"
FAKE_GPUS = ROOT / "tests" / "gpus" / "fake.toml"
APPLIED = {
    "result": "applied",
    "keys": ["sharing.duplication_factor: 100 -> 10"],
    "shares": [],
    "problems": [],
    "warnings": [],
}
REFUSED = {**APPLIED, "result": "refused", "keys": [], "problems": ["sgpud.toml:2: wrong"]}


@define
class Ran:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def run(*arguments: str) -> Ran:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    status = main(arguments, {}, out, err)
    return Ran(status, out.getvalue(), err.getvalue())


def process(
    *arguments: str, stdout: Any = subprocess.PIPE, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "sgpud", *arguments],
        cwd=ROOT,
        env=env,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def daemon(answers: Mapping[str, object]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Something that answers on a control socket: its run directory, and what it was asked."""
    asked: list[dict[str, Any]] = []
    with short_folder() as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / CONTROL))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, connection.makefile("rwb") as stream:
                    request = json.loads(stream.readline())
                    asked.append(request)
                    known = answers.get(request["verb"])
                    answer = (
                        {"ok": True, "answer": known} if known else {"ok": False, "error": "no"}
                    )
                    stream.write(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield str(folder), asked
        server.shutdown(socket.SHUT_RDWR)
        thread.join(WITHIN)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "sgpud.toml"
    made.write_text(GOOD)
    return made


# check-config. -----------------------------------------------------------------------------------


def test_a_valid_file_is_accepted(file: Path) -> None:
    ran = run("check-config", str(file))
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == f"{file} is valid\n"


def test_an_invalid_file_is_reported_with_every_problem_and_line(file: Path) -> None:
    file.write_text(BAD)
    ran = run("check-config", str(file))
    assert ran.status == 78
    first, second, verdict = ran.out.splitlines()
    assert first.startswith(f"{file}:2: sharing.duplication_facto: ")
    assert second.startswith(f"{file}:5: gpus.allow: ")
    assert verdict == f"{file} has 2 problems"
    assert ran.err == ""


def test_a_warning_is_shown_and_is_not_an_error(file: Path) -> None:
    file.write_text('[[gpu]]\nmatch = "*"\n[[gpu]]\nmatch = "NVIDIA*"\n')
    ran = run("check-config", str(file), "--json")
    assert ran.status == 0
    assert ran.document["good"] is True
    assert ran.document["errors"] == []
    assert len(ran.document["warnings"]) == 1


def test_the_json_of_an_invalid_file_has_its_problems(file: Path) -> None:
    file.write_text(BAD)
    ran = run("check-config", "--json", str(file))
    assert ran.status == 78
    assert ran.document["file"] == str(file)
    assert ran.document["good"] is False
    assert len(ran.document["errors"]) == 2


def test_overrides_are_checked_too(file: Path) -> None:
    assert run("check-config", str(file), "--set", "sharing.placement=packed").status == 0
    ran = run("check-config", str(file), "--set", "sharing.placement=packet")
    assert ran.status == 78
    assert ran.out.startswith("--set: sharing.placement: ")


def test_a_missing_file_is_an_invalid_configuration(tmp_path: Path) -> None:
    ran = run("check-config", str(tmp_path / "absent"))
    assert ran.status == 78
    assert "does not exist" in ran.out


def test_the_given_file_is_good() -> None:
    assert run("check-config", str(ROOT / "etc" / "sgpud.toml")).status == 0


# What a running daemon answers. ------------------------------------------------------------------


def test_a_successful_reload_says_what_changed() -> None:
    with daemon({"reload": APPLIED}) as (folder, asked):
        ran = run("reload", "--run-dir", folder)
        assert ran.status == 0
        assert "sharing.duplication_factor: 100 -> 10" in ran.out
        assert run("reload", "--run-dir", folder, "--json").document == APPLIED
        assert [request["verb"] for request in asked] == ["reload", "reload"]


def test_a_refused_reload_says_why_and_exits_with_78() -> None:
    with daemon({"reload": REFUSED}) as (folder, _):
        ran = run("reload", "--run-dir", folder)
        assert ran.status == 78
        assert "sgpud.toml:2: wrong" in ran.out
        as_json = run("reload", "--run-dir", folder, "--json")
        assert (as_json.status, as_json.document) == (78, REFUSED)


def test_a_failed_release_exits_with_1() -> None:
    for released, status in ((True, 0), (False, 1)):
        with daemon({"release": {"released": released, "within": 900}}) as (folder, _):
            assert run("release", "--run-dir", folder, "--json").status == status


def test_an_acquire_is_confirmed() -> None:
    with daemon({"acquire": {"acquired": True}}) as (folder, _):
        ran = run("acquire", "--run-dir", folder)
    assert (ran.status, ran.out) == (0, "Reading the GPUs again.\n")


@pytest.mark.parametrize("verb", ["reload", "release", "acquire"])
def test_without_a_daemon_a_command_says_how_to_start_it(verb: str, tmp_path: Path) -> None:
    ran = run(verb, "--run-dir", str(tmp_path))
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith("sgpud: No sgpud answers on ")
    assert len(ran.err.splitlines()) == 1


def test_a_refusal_of_the_daemon_is_printed() -> None:
    with daemon({}) as (folder, _):
        ran = run("acquire", "--run-dir", folder)
    assert (ran.status, ran.err) == (1, "sgpud: no\n")


def test_the_plan_is_that_of_the_running_daemon() -> None:
    seen: dict[str, object] = {"view": {"pools": []}, "reload": APPLIED}
    with daemon({"plan": seen}) as (folder, asked):
        ran = run("plan", "--run-dir", folder, "--json")
    assert (ran.status, ran.document) == (0, seen)
    assert asked == [{"verb": "plan", "arguments": {"set": []}}]


def test_a_plan_with_config_uses_that_file(file: Path, tmp_path: Path) -> None:
    view: dict[str, object] = {"pools": []}
    set_ = ("--set", "sharing.duplication_factor=7")
    with daemon({"plan": {"view": view, "reload": APPLIED}}) as (folder, asked):
        there = ("plan", "--json", "--run-dir", folder)
        assert run(*there, "--config", str(file), *set_).status == 0
        absent = run(*there, "--config", str(tmp_path / "absent.toml"))
    assert asked[0]["arguments"] == {"set": [set_[1]], "file": str(file), "text": GOOD}
    assert (absent.status, len(asked)) == (78, 1)
    assert "absent.toml: does not exist" in absent.err
    refused = {**APPLIED, "result": "refused", "problems": ["f:1: bad"]}
    with daemon({"plan": {"view": view, "reload": refused}}) as (folder, _):
        assert run("plan", "--json", "--run-dir", folder, "--config", str(file)).status == 78


# Arguments. --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["--json"],
        ["run", "--json"],
        ["reload", "now"],
        ["check-config", "a", "b"],
        ["plan", "--fake-gpus"],
    ],
)
def test_wrong_arguments_exit_with_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: sgpud")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["statsu"], "no such command: 'statsu'; did you mean 'status'?"),
        (["check-confg", "f.toml"], "did you mean 'check-config'?"),
        (["xyz"], "no such command: 'xyz'; see sgpud --help"),
        (["top", "--every", "0"], "'0' is not a number of seconds from 0.1 to 3600"),
        (["top", "--every", "soon"], "'soon' is not a number of seconds from 0.1 to 3600"),
    ],
)
def test_a_wrong_argument_says_what_to_write(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_the_help_has_a_getting_started(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    commands = ("run", "check-config", "gpus", "plan", "reload", "release", "acquire")
    for command in commands:
        assert re.search(rf"^    {command}\s", shown, re.MULTILINE)
        with pytest.raises(SystemExit) as caught:
            main([command, "--help"])
        assert caught.value.code == 0
    for status in ("0 success", "1 failure", "2 wrong arguments", "75 restart", "78 invalid"):
        assert status in " ".join(shown.split())


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"sgpud {__version__}\n"


def test_a_name_in_an_error_cannot_control_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[2Jfolder"
    done = run("status", "--run-dir", str(path))
    assert done.status == 1
    assert r"\x1b[2Jfolder" in done.err
    assert "\x1b" not in done.err


# As a process. -----------------------------------------------------------------------------------

IMPORTED = """
import sys
from sgpud.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
heavy = {
    *("twisted", "grpc", "google.protobuf", "prometheus_client", "pynvml", "yaml", "zope.interface")
}
print(status, sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["check-config", "etc/sgpud.toml"], 0),
        (["status", "--run-dir", "/nonexistent"], 1),
        (["top", "--run-dir", "/nonexistent"], 1),
        (["reload", "--run-dir", "/nonexistent"], 1),
        (["release", "--run-dir", "/nonexistent"], 1),
        (["acquire", "--run-dir", "/nonexistent"], 1),
    ],
)
def test_commands_that_need_no_reactor_import_none(arguments: list[str], status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr.splitlines()[-1] == f"{status} []"


@pytest.mark.slow
def test_importing_the_command_changes_nothing_in_the_process() -> None:
    program = (
        "import signal, sys; before = signal.getsignal(signal.SIGHUP)\n"
        "import sgpud.cli.main, sgpud.__main__\n"
        "print(signal.getsignal(signal.SIGHUP) is before, None in sys.modules.values())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "True False\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        "import runpy; runpy.run_module('sgpud', run_name='__main__', alter_sys=True)",
        f"import runpy; sys.path.insert(0, {str(ROOT)!r}); runpy.run_path('debian/bin/sgpud')",
        "import sgpud.__main__; sgpud.__main__.run()",
    ],
)
def test_every_entry_point_ignores_sighup_before_it_imports_the_command(program: str) -> None:
    """Seen at the first import of a module of the command line."""
    look = """
import signal, sys

class Finder:
    def find_spec(self, name, *_):
        if name == "sgpud.cli":
            print(signal.getsignal(signal.SIGHUP).name, flush=True)

sys.meta_path.insert(0, Finder())
sys.argv[1:] = ["--version"]
"""
    done = subprocess.run(
        [sys.executable, "-c", look + program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == [signal.SIG_IGN.name, f"sgpud {__version__}"]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["gpus", "plan", "doctor"])
def test_commands_that_read_the_node_import_neither_grpc_nor_the_daemon(command: str) -> None:
    program = IMPORTED.replace('"yaml"', '"yaml", "sgpud.app"').replace("status,", "'',")
    options = ["--simulate", "tests/gpus/simulated.toml", "--run-dir", "/nonexistent"]
    done = subprocess.run(
        [sys.executable, "-c", program, command, "--config", "etc/sgpud.toml", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    heavy = done.stderr.splitlines()[-1]
    assert "twisted" in heavy
    assert "grpc" not in heavy
    assert "sgpud.app" not in heavy


@pytest.mark.slow
def test_a_full_disk_is_reported_on_one_line(file: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = process("check-config", str(file), stdout=full)
    assert done.returncode == 1
    assert done.stderr == "sgpud: [Errno 28] No space left on device\n"


@pytest.mark.slow
def test_a_closed_pipe_is_not_an_error(file: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:  # noqa: PTH123 - it is a descriptor
        done = process("check-config", str(file), stdout=pipe)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_closed_output_is_not_an_error(file: Path) -> None:
    shell = 'exec "$0" -m sgpud check-config "$1" >&-'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, str(file)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_name_that_the_terminal_cannot_show_is_shown_escaped(tmp_path: Path) -> None:
    file = tmp_path / "\u00e9.toml"
    file.write_text(GOOD)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = process("check-config", str(file), env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\\xe9.toml is valid\n")


@pytest.mark.slow
def test_the_daemon_does_not_start_on_an_invalid_file(file: Path, tmp_path: Path) -> None:
    file.write_text(BAD)
    state = ["--state-dir", str(tmp_path / "state"), "--run-dir", str(tmp_path / "run")]
    done = process("run", "--config", str(file), "--fake-gpus", str(FAKE_GPUS), *state)
    assert done.returncode == 78
    assert f"{file}:2: " in done.stderr
    assert f"{file}:5: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_daemon_does_not_start_on_an_invalid_fake_gpus_file(file: Path, tmp_path: Path) -> None:
    done = process("run", "--config", str(file), "--fake-gpus", str(tmp_path / "absent"))
    assert done.returncode == 78
    assert "absent" in done.stderr
    assert "Traceback" not in done.stderr
