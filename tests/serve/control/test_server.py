"""The control socket: real sockets on the real reactor, with a time that the test moves."""

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from twisted.internet import reactor as installed  # noqa: TID251 - its sockets are what is tested
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from sgpud.core.errors import SgpudError
from sgpud.serve.control.client import (
    REQUEST_LIMIT,
    AbsentError,
    ControlError,
    RefusedRequestError,
    ask,
)
from sgpud.serve.control.protocol import CLIENT_TIMEOUT, Verb
from sgpud.serve.control.server import CONNECTIONS, ControlServer
from sgpud.serve.unix_socket import GRACE, HANDOVER, LOOK_EVERY

reactor: Any = installed
Steps = Any
"""What inlineCallbacks takes."""


class OwnTime(Clock):
    """The reactor's sockets, and a time of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._awaited, self._missing = 0.0, 0
        self._happened: Deferred[None] = Deferred()

    def addReader(self, reader: Any) -> None:
        reactor.addReader(reader)

    def removeReader(self, reader: Any) -> None:
        reactor.removeReader(reader)

    def addWriter(self, writer: Any) -> None:
        reactor.addWriter(writer)

    def removeWriter(self, writer: Any) -> None:
        reactor.removeWriter(writer)

    def callLater(self, delay: float, callable: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: A002
        # What Twisted's sockets put off for no time is the real reactor's.
        if not delay:
            return reactor.callLater(0, callable, *args, **kwargs)
        if delay == self._awaited:
            self._missing -= 1
            if not self._missing:
                reactor.callLater(0, self._happened.callback, None)
        return super().callLater(delay, callable, *args, **kwargs)

    def put_off(self, delay: float, times: int = 1) -> Deferred[None]:
        """Fires when something has been put off by so much, so many times from now on."""
        self._awaited, self._missing, self._happened = delay, times, Deferred()
        return self._happened


@implementer(ILogObserver)
class Said:
    """What was logged, as text."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, event: LogEvent) -> None:
        if str(event.get("log_namespace")).startswith("sgpud"):
            self.lines.append(formatEvent(event))

    def about(self, word: str) -> list[str]:
        return [line for line in self.lines if word in line]


def talk(path: Path, data: bytes, *, half_close: bool = False) -> bytes:
    """Send this, and read until the other hangs up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            return stream.readline()


def raise_(error: Exception) -> None:
    raise error


class ControlTest(TestCase):
    timeout = 30

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "sgpud" / "control.sock"
        self.time: Any = OwnTime()
        self.said = Said()
        globalLogPublisher.addObserver(self.said)
        self.addCleanup(globalLogPublisher.removeObserver, self.said)

    def serve(self, **verbs: Verb) -> ControlServer:
        control = ControlServer(
            self.time, self.path, {"echo": lambda arguments: arguments, **verbs}
        )
        self.addCleanup(control.stop)
        control.start()
        return control

    def ask(self, verb: str = "echo", **arguments: object) -> Deferred[dict[str, Any]]:
        return deferToThread(ask, self.path, verb, arguments, 20)

    def talk(self, data: bytes, *, half_close: bool = False) -> Deferred[bytes]:
        return deferToThread(talk, self.path, data, half_close=half_close)

    # Verbs. --------------------------------------------------------------------------------------

    @inlineCallbacks
    def test_a_verb_receives_its_arguments_and_returns_its_answer(self) -> Steps:
        self.serve(later=lambda _: succeed({"keys": ["a", "b"]}))
        assert (yield self.ask("echo", a=1)) == {"a": 1}
        assert (yield self.ask("later")) == {"keys": ["a", "b"]}

    @inlineCallbacks
    def test_a_long_answer_is_sent_whole(self) -> Steps:
        self.serve(long=lambda _: {"text": "x" * 3_000_000})
        assert len((yield self.ask("long"))["text"]) == 3_000_000

    @inlineCallbacks
    def test_a_request_is_logged_with_its_peer_and_outcome(self) -> Steps:
        self.serve()
        yield self.ask("echo")
        yield self.talk(b"x\n")
        me = f"requested by uid {os.geteuid()} (pid {os.getpid()})"
        done, refused = self.said.lines
        assert done == f"echo, {me}: done"
        assert refused.startswith(f"a request, {me}: refused: a request is one line of JSON: ")

    @inlineCallbacks
    def test_a_verb_refuses_with_its_own_message(self) -> Steps:
        self.serve(
            now=lambda _: raise_(SgpudError("not while a GPU is released")),
            later=lambda _: fail(SgpudError("no kubelet")),
        )
        error = yield self.assertFailure(self.ask("now"), RefusedRequestError)
        assert str(error) == "not while a GPU is released"
        error = yield self.assertFailure(self.ask("later"), RefusedRequestError)
        assert str(error) == "no kubelet"

    @inlineCallbacks
    def test_a_verb_that_raises_is_logged_and_answered(self) -> Steps:
        self.serve(breaks=lambda _: raise_(KeyError("secret")), odd=lambda _: {"a": {1, 2}})
        for verb, kind in (("breaks", KeyError), ("odd", TypeError)):
            error = yield self.assertFailure(self.ask(verb), RefusedRequestError)
            assert "see the log of sgpud" in str(error)
            assert "secret" not in str(error)
            assert len(self.flushLoggedErrors(kind)) == 1
        assert (yield self.ask("echo", still=True)) == {"still": True}

    @inlineCallbacks
    def test_an_unknown_verb_is_answered_with_the_known_ones(self) -> Steps:
        self.serve(reload=lambda _: {})
        error = yield self.assertFailure(self.ask("stop"), RefusedRequestError)
        assert str(error) == "no such verb; available: echo, reload"

    # Clients that misbehave. ---------------------------------------------------------------------

    @inlineCallbacks
    def test_an_invalid_request_is_answered(self) -> Steps:
        self.serve()
        for data in (b"reload\n", b"x" * (REQUEST_LIMIT + 1), b'{"verb": 1}\n', b"\xff\n{}\n"):
            answer = json.loads((yield self.talk(data)))
            assert answer["ok"] is False
            assert answer["error"]

    @inlineCallbacks
    def test_a_half_closed_connection_is_answered(self) -> Steps:
        self.serve()
        answer = yield self.talk(b'{"verb": "echo"}', half_close=True)
        assert json.loads(answer) == {"ok": True, "answer": {}}
        assert (yield self.talk(b"", half_close=True)) == b""

    @inlineCallbacks
    def test_a_client_without_a_request_times_out(self) -> Steps:
        self.serve()
        connected = self.time.put_off(CLIENT_TIMEOUT)
        answer = self.talk(b'{"verb"')
        yield connected
        self.time.advance(CLIENT_TIMEOUT)
        assert json.loads((yield answer))["error"] == "no request within 5 s"

    @inlineCallbacks
    def test_a_client_that_does_not_read_its_answer_times_out(self) -> Steps:
        self.serve(long=lambda _: {"text": "x" * 3_000_000})
        answered = self.time.put_off(CLIENT_TIMEOUT, times=2)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
            client.sendall(b'{"verb": "long"}\n')
            yield answered
            self.time.advance(CLIENT_TIMEOUT)
            received = yield deferToThread(_rest, client)
        assert len(received) < 3_000_000

    @inlineCallbacks
    def test_a_client_that_disconnects_does_not_stop_the_verb(self) -> Steps:
        asked: Deferred[None] = Deferred()
        result: Deferred[dict[str, object]] = Deferred()

        def slow(_: object) -> Deferred[dict[str, object]]:
            asked.callback(None)
            return result

        control = self.serve(slow=slow)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))
            client.sendall(b'{"verb": "slow"}\n')
            yield asked
        yield self.ask("echo")
        result.callback({})
        assert len(self.said.about("slow, requested")) == 1
        yield control.stop()

    @inlineCallbacks
    def test_a_connection_beyond_the_limit_is_refused(self) -> Steps:
        self.serve()
        clients = [socket.socket(socket.AF_UNIX) for _ in range(CONNECTIONS)]
        connected = self.time.put_off(CLIENT_TIMEOUT, times=CONNECTIONS)
        for client in clients:
            self.addCleanup(client.close)
            client.connect(str(self.path))
        yield connected
        error = yield self.assertFailure(self.ask("echo"), RefusedRequestError)
        assert str(error) == "too many connections: try again"
        clients[0].shutdown(socket.SHUT_RDWR)
        yield deferToThread(_rest, clients[0])
        assert (yield self.ask("echo")) == {}

    @pytest.mark.slow
    @pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user to be refused")
    @inlineCallbacks
    def test_another_user_is_refused_even_if_the_file_mode_allows_it(self) -> Steps:
        self.serve()
        assert stat.S_IMODE(self.path.stat().st_mode) == 0o660
        self.path.chmod(0o666)
        self.path.parent.parent.chmod(0o755)
        program = (
            "import os, sys\nfrom pathlib import Path\n"
            "from sgpud.serve.control.client import ControlError, ask\n"
            "os.setuid(65534)\n"
            "try: ask(Path(sys.argv[1]), 'echo')\n"
            "except ControlError as error: print(error)\n"
        )
        done = yield deferToThread(
            subprocess.run,
            [sys.executable, "-c", program, str(self.path)],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert done.stdout == "permission denied: run this command as root\n"
        assert len(self.said.about("uid 65534")) == 1

    # The socket file. ----------------------------------------------------------------------------

    @inlineCallbacks
    def test_the_folder_is_created_and_the_socket_removed_on_stop(self) -> Steps:
        control = self.serve()
        assert stat.S_IMODE(self.path.parent.stat().st_mode) == 0o755
        yield control.stop()
        assert not control.listening
        assert not self.path.exists()
        yield self.assertFailure(self.ask("echo"), AbsentError)
        control.start()
        assert (yield self.ask("echo")) == {}

    @inlineCallbacks
    def test_stopping_closes_connections_that_wait_for_an_answer(self) -> Steps:
        asked: Deferred[None] = Deferred()

        def never(_: object) -> Deferred[None]:
            asked.callback(None)
            return Deferred()

        control = self.serve(never=never)
        answer = self.assertFailure(self.ask("never"), ControlError)
        yield asked
        yield control.stop()
        assert "stopped before it answered" in str((yield answer))
        assert self.time.getDelayedCalls() == []

    @inlineCallbacks
    def test_a_stale_socket_is_replaced(self) -> Steps:
        self.path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.path))
        self.serve()
        assert (yield self.ask("echo")) == {}

    @inlineCallbacks
    def test_a_file_that_is_not_a_socket_is_left_alone_and_reported(self) -> Steps:
        self.path.parent.mkdir()
        self.path.write_text("precious")
        self.serve()
        self.time.advance(LOOK_EVERY)
        assert self.path.read_text() == "precious"
        (line,) = self.said.about("No control socket")
        assert "is not a socket: remove it" in line
        self.path.unlink()
        self.time.advance(LOOK_EVERY)
        assert (yield self.ask("echo")) == {}
        assert len(self.said.about("Control socket")) == 1

    def test_a_folder_that_cannot_be_created_is_logged_once(self) -> None:
        self.path.parent.write_text("a file")
        control = self.serve()
        self.time.advance(LOOK_EVERY)
        assert not control.listening
        assert len(self.said.about("No control socket")) == 1

    @inlineCallbacks
    def test_a_removed_socket_is_recreated(self) -> Steps:
        self.serve()
        self.path.unlink()
        self.time.advance(LOOK_EVERY)
        assert (yield self.ask("echo")) == {}
        assert len(self.said.about("was removed; recreating")) == 1

    @inlineCallbacks
    def test_a_successor_waits_until_the_socket_is_removed(self) -> Steps:
        first = self.serve(who=lambda _: {"who": "first"})
        self.serve(who=lambda _: {"who": "second"})
        assert (yield self.ask("who")) == {"who": "first"}
        yield first.stop()
        self.time.advance(HANDOVER)
        assert (yield self.ask("who")) == {"who": "second"}
        assert self.said.about("No control socket") == []

    def test_a_wait_that_does_not_end_is_logged(self) -> None:
        self.serve()
        second = self.serve()
        for _ in range(round(GRACE / HANDOVER) + 2):
            self.time.advance(HANDOVER)
        assert not second.listening
        assert len(self.said.about("another sgpud listens there")) == 1

    @inlineCallbacks
    def test_a_file_that_replaced_the_socket_is_not_removed_on_stop(self) -> Steps:
        control = self.serve()
        self.path.unlink()
        self.path.write_text("another's")
        yield control.stop()
        assert self.path.read_text() == "another's"


def _rest(client: socket.socket) -> bytes:
    client.settimeout(20)
    received = b""
    while data := client.recv(1_000_000):
        received += data
    return received
