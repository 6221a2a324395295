"""The control socket of a running daemon: for root, for one short line."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable

import pytest

from sgpud.serve.control.client import REQUEST_LIMIT
from tests.daemon.node import Node
from tests.daemon.process import Process
from tests.daemon.record import WITHIN

NOBODY = 65534
ASK = """
import os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[2]))
os.setuid(int(sys.argv[2]))
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
try:
    connection.sendall(b'{"verb": "%s"}\\n' % sys.argv[3].encode())
except BrokenPipeError:
    pass  # who it is was enough
print(connection.makefile().readline())
"""


def exchange(node: Node, line: bytes) -> dict[str, object]:
    """What the socket answers to a line."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WITHIN)
        connection.connect(str(node.control))
        connection.sendall(line)
        answer = connection.makefile("rb").readline()
    found: dict[str, object] = json.loads(answer)
    return found


@pytest.fixture
def as_nobody(node: Node) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Asks the control socket as a user without any rights."""
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")

    def ask(verb: str = "reload") -> subprocess.CompletedProcess[str]:
        # It becomes nobody by itself: subprocess would fork for that, which is unsafe beside the
        # threads of gRPC in this process.
        return subprocess.run(
            [sys.executable, "-I", "-c", ASK, str(node.control), str(NOBODY), verb],
            cwd="/",
            check=False,
            capture_output=True,
            text=True,
            timeout=WITHIN,
        )

    return ask


@pytest.mark.usefixtures("daemon")
def test_only_its_owner_and_its_group_may_open_it(
    node: Node, as_nobody: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert stat.S_IMODE(node.control.stat().st_mode) == 0o660
    node.root.chmod(0o755)
    node.run.chmod(0o755)
    assert "PermissionError" in as_nobody().stderr


def test_a_peer_that_is_not_root_is_refused_even_if_the_file_lets_it_in(
    node: Node, daemon: Process, as_nobody: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    node.root.chmod(0o755)
    node.run.chmod(0o755)
    node.control.chmod(0o666)
    refused = as_nobody()
    assert refused.stderr == ""
    assert json.loads(refused.stdout) == {
        "ok": False,
        "error": "permission denied: run this command as root",
    }
    assert json.loads(as_nobody("plan").stdout)["ok"] is True
    daemon.said(f"requested by uid {NOBODY}")


def test_an_oversized_request_is_refused(node: Node, daemon: Process) -> None:
    def padded(size: int) -> bytes:
        line = b'{"verb": "status", "arguments": {"x": "%s"}}'
        return line % (b"x" * (size - len(line) + 2))

    assert len(padded(REQUEST_LIMIT)) == REQUEST_LIMIT
    assert exchange(node, padded(REQUEST_LIMIT) + b"\n")["ok"] is True
    assert exchange(node, padded(REQUEST_LIMIT + 1)) == {
        "ok": False,
        "error": f"a request has at most {REQUEST_LIMIT} bytes",
    }
    daemon.said(f"refused: a request has at most {REQUEST_LIMIT} bytes")


@pytest.mark.usefixtures("daemon")
def test_garbage_is_answered(node: Node) -> None:
    for line in (b"\n", b"[]\n", b'{"verb": 1}\n', b"\xff\xfe\n", b"[" * 4000):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WITHIN)
            connection.connect(str(node.control))
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            answer = json.loads(connection.makefile("rb").readline())
        assert answer["ok"] is False
        assert answer["error"]


def test_every_verb_is_logged_with_who_asked(node: Node, daemon: Process) -> None:
    daemon.ask("reload")
    daemon.said(f"reload, requested by uid {os.geteuid()} (pid {os.getpid()}): done")
    assert exchange(node, b'{"verb": "explode"}\n')["ok"] is False
    daemon.said("explode, requested by uid")
