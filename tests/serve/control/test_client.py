"""What a command says when the daemon does not answer as it should."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from sgpud.serve.control.client import (
    REQUEST_LIMIT,
    AbsentError,
    ControlError,
    RefusedRequestError,
    ask,
)


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """A server that takes one line and says this."""
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(10)
            asked.append(connection.makefile("rb").readline())
            connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(10)
        listener.bind(str(path))
        listener.listen()
        thread = Thread(target=serve)
        thread.start()
        yield asked
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def test_the_answer_is_what_the_daemon_says(path: Path) -> None:
    with answering(path, b'{"ok": true, "answer": {"keys": ["a"]}}\n') as asked:
        assert ask(path, "reload", {"dry": True}, timeout=10) == {"keys": ["a"]}
    assert json.loads(asked[0]) == {"verb": "reload", "arguments": {"dry": True}}


def test_a_refusal_repeats_the_daemons_message(path: Path) -> None:
    with (
        answering(path, b'{"ok": false, "error": "permission denied"}\n'),
        pytest.raises(RefusedRequestError, match="permission denied"),
    ):
        ask(path, "reload", timeout=10)


def test_without_a_socket_the_error_says_to_start_the_daemon(path: Path) -> None:
    with pytest.raises(AbsentError, match="systemctl start sgpud") as caught:
        ask(path, "reload")
    assert str(path) in str(caught.value)


def test_with_a_stale_socket_the_error_says_to_start_the_daemon(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(AbsentError):
        ask(path, "reload")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"[]",
        b'{"ok": 1}',
        b'{"ok": true, "answer": 7}',
        b'{"ok": false}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_an_invalid_answer_is_an_error(path: Path, answer: bytes) -> None:
    with (
        answering(path, answer),
        pytest.raises(ControlError, match="not sgpud, or another version"),
    ):
        ask(path, "reload", timeout=10)


def test_an_end_without_an_answer_points_to_the_log(path: Path) -> None:
    with answering(path, b""), pytest.raises(ControlError, match="stopped before it answered"):
        ask(path, "reload", timeout=10)


def test_a_missing_answer_times_out(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(ControlError, match=r"did not answer reload .* within 0\.05 s"):
            ask(path, "reload", timeout=0.05)


def test_an_oversized_request_is_not_sent(path: Path) -> None:
    with pytest.raises(ControlError, match=f"the limit is {REQUEST_LIMIT}"):
        ask(path, "reload", {"text": "x" * REQUEST_LIMIT})


def test_a_path_that_cannot_be_a_socket_is_a_control_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, file / "below", tmp_path / ("x" * 200)):
        with pytest.raises(ControlError, match=str(tmp_path)):
            ask(path, "reload")


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user to be refused")
def test_without_permission_the_error_says_to_run_as_root(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o600)
        path.parent.chmod(0o755)
        program = (
            "import os, sys\nfrom pathlib import Path\n"
            "from sgpud.serve.control.client import ControlError, ask\n"
            "os.setuid(65534)\n"
            "try: ask(Path(sys.argv[1]), 'reload')\n"
            "except ControlError as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert "run this command as root" in done.stdout


@pytest.mark.slow
def test_the_client_needs_the_standard_library_only() -> None:
    program = (
        "import sys, sgpud.serve.control.client\n"
        "print({'twisted', 'grpc', 'attr', 'prometheus_client'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"
