"""`sgpud top` on a terminal: a real one, with a stand-in for the daemon at the other end."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from attrs import define, evolve, field

from sgpud.core.status.view import NodeView, document
from tests.daemon.process import SOURCE
from tests.node_view import VIEW

pytestmark = pytest.mark.slow

WITHIN = 20.0


@define
class Answers:
    """Gives the status document to everyone who asks on a socket."""

    folder: Path
    view: NodeView = VIEW
    asked: threading.Semaphore = field(factory=lambda: threading.Semaphore(0))

    @contextmanager
    def served(self) -> Iterator[None]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self.folder / "status.sock"))
            listener.listen()
            thread = threading.Thread(target=self._serve, args=(listener,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)
                thread.join(WITHIN)

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    client.recv(4096)
                    body = json.dumps(document(self.view)).encode()
                    client.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)
                self.asked.release()


class Terminal:
    """A terminal with `sgpud top` on it."""

    def __init__(self, folder: Path, **more: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sgpud", "top", "--every", "0.1", "--run-dir", str(folder)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "PYTHONPATH": SOURCE, "TERM": "xterm", **more},
        )
        self.shown = ""

    def until(self, text: str, since: int = 0) -> None:
        """Read what is shown until this text is."""
        end = time.monotonic() + WITHIN
        while text not in self.shown[since:]:
            assert time.monotonic() < end, self.shown
            ready, _, _ = select.select([self._master], [], [], 1.0)
            if ready:
                self.shown += os.read(self._master, 65536).decode()

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def end(self) -> int:
        """Wait for its end; its exit status."""
        while self._process.poll() is None:
            ready, _, _ = select.select([self._master], [], [], 0.1)
            if ready:
                self.shown += os.read(self._master, 65536).decode()
        assert termios.tcgetattr(self._slave) == self.before
        return self._process.returncode

    def terminate(self) -> None:
        self._process.terminate()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(WITHIN)
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answers]:
    made = Answers(tmp_path_factory.mktemp("run"))
    with made.served():
        yield made


@contextmanager
def terminal(answers: Answers, **more: str) -> Iterator[Terminal]:
    made = Terminal(answers.folder, **more)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03"])
def test_it_shows_the_status_until_a_key_ends_it(answers: Answers, key: bytes) -> None:
    with terminal(answers) as shown:
        shown.until("team/train/main")
        shown.until("q quit ")
        shown.press(b"x")
        shown.press(key)
        assert shown.end() == 0
    assert "\x1b[1m" in shown.shown
    assert shown.shown.rstrip().endswith("\x1b[?1049l")


def test_keys_filter_fold_sort_and_scroll(answers: Answers) -> None:
    with terminal(answers) as shown:
        shown.until("q quit  m memory")
        shown.press(b"/q")  # typed, not a command
        shown.until("filter: q")
        shown.press(b"\x7ftrain\r")
        shown.until("filter: train")
        mark = len(shown.shown)
        shown.until("team/train/main", mark)
        shown.press(b"/\x1b")
        shown.until("q quit  m memory", mark)
        shown.press(b" bp\x1b[B\x1b[6~k")
        shown.press(b"q")
        assert shown.end() == 0


def test_top_shows_the_current_status(answers: Answers) -> None:
    with terminal(answers) as shown:
        shown.until("serving")
        answers.view = evolve(VIEW, serving="standby: another")
        shown.until("standby: another")
        shown.press(b"q")
        assert shown.end() == 0


def test_top_waits_for_a_daemon_that_stopped(answers: Answers) -> None:
    with terminal(answers) as shown:
        shown.until("team/train/main")
        (answers.folder / "status.sock").rename(answers.folder / "away.sock")
        shown.until("No sgpud answers")
        (answers.folder / "away.sock").rename(answers.folder / "status.sock")
        shown.until("team/train/main", len(shown.shown))
        shown.press(b"q")
        assert shown.end() == 0


def test_no_color_disables_colours(answers: Answers) -> None:
    with terminal(answers, NO_COLOR="1") as shown:
        shown.until("team/train/main")
        shown.press(b"q")
        assert shown.end() == 0
    assert "\x1b[1m" not in shown.shown


def test_sigterm_leaves_the_terminal_as_it_was(answers: Answers) -> None:
    with terminal(answers) as shown:
        shown.until("q quit ")
        shown.terminate()
        assert shown.end() == 128 + signal.SIGTERM
    assert shown.shown.rstrip().endswith("\x1b[?1049l")
