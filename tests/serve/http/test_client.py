"""How the status is asked for, and what is said where it cannot be had."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from sgpud.serve.control.client import StatusError, read_status


def answer(folder: Path, *parts: bytes, hang: threading.Event | None = None) -> threading.Thread:
    """Give one client these bytes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(folder / "status.sock"))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as client:
            client.recv(4096)
            for part in parts:
                client.sendall(part)
            if hang is not None:
                hang.wait(20)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("r")


def test_a_status_document_is_returned(run: Path) -> None:
    thread = answer(run, b"HTTP/1.0 200 OK\r\nx: y\r\n", b'\r\n{"a":', b" 1}")
    assert read_status(run) == {"a": 1}
    thread.join(20)


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (
            b"HTTP/1.0 500 X\r\n\r\nIt could not be made\n",
            "returned no status: It could not be made",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\n[1]", "not sgpud, or another version"),
        (b"HTTP/1.0 200 OK\r\n\r\n{", "not sgpud, or another version"),
        (b"", "returned no status"),
        (b"\xff\xfe", "returned no status"),
    ],
)
def test_an_answer_that_is_not_a_status_is_an_error(run: Path, sent: bytes, says: str) -> None:
    answer(run, sent)
    with pytest.raises(StatusError, match=says):
        read_status(run)


def test_without_a_listener_the_error_says_to_start_sgpud(run: Path) -> None:
    with pytest.raises(StatusError, match=r"No sgpud answers on .*status.sock. Start it"):
        read_status(run)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(run / "status.sock"))
    with pytest.raises(StatusError, match="No sgpud answers"):
        read_status(run)


def test_a_daemon_that_does_not_answer_times_out(run: Path) -> None:
    over = threading.Event()
    answer(run, b"HTTP/1.0 200 OK\r\n", hang=over)
    with pytest.raises(StatusError, match=r"did not answer on .* within 0.2 s"):
        read_status(run, 0.2)
    over.set()


def test_without_permission_the_error_says_so(run: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    answer(run, b"")
    (run / "status.sock").chmod(0)
    with pytest.raises(StatusError, match="run this as root, or as a member of its group"):
        read_status(run)


def test_a_file_that_is_not_a_socket_is_an_error(run: Path) -> None:
    (run / "status.sock").write_text("")
    with pytest.raises(StatusError):
        read_status(run)
