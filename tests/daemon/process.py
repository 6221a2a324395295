"""One sgpud as a process of its own: what it is told, what it says, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

import sgpud
from sgpud.serve.control.client import ask
from tests.daemon.record import WITHIN, Record

SOURCE = str(Path(sgpud.__file__).parents[1])
IN_TIME = 30.0
"""Seconds until a signal has ended it, on a machine that many daemons keep busy. What it takes on
one that is not, at most 2 s, is measured by `make bench`."""


@frozen
class Line:
    """One line of standard error."""

    text: str
    fields: Mapping[str, Any]
    """What it says as a JSON object; empty where it is none."""

    @property
    def message(self) -> str:
        """The message of the log, or the line itself."""
        return str(self.fields.get("message", self.text))

    @property
    def level(self) -> str:
        """The level of the log, or empty."""
        return str(self.fields.get("level", ""))

    @property
    def complaint(self) -> bool:
        """Whether no daemon should ever say this."""
        return "Traceback (most recent call last)" in self.text or self.level == "critical"

    def __str__(self) -> str:
        """Level and message; the whole line if it is a complaint."""
        return self.text if self.complaint else f"{self.level} {self.message}"


def _line(text: str) -> Line:
    try:
        fields = json.loads(text)
    except ValueError:
        fields = {}
    return Line(text, fields if isinstance(fields, dict) else {})


class Process:
    """A running sgpud. Every wait has a time limit and ends in an AssertionError."""

    def __init__(
        self,
        words: Sequence[str],
        notices: Path,
        control: Path,
        environment: Mapping[str, str],
        python: Sequence[str] = (),
        before: Sequence[str] = (),
    ) -> None:
        """Start `sgpud run WORDS`. `before` is a command that executes what follows it."""
        self.log: Record[Line] = Record("line of the log")
        self.notices: Record[Mapping[str, str]] = Record("notice to systemd")
        self._control = control
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(notices))
        self.ended = 0.0
        self._process = subprocess.Popen(
            [*before, sys.executable, *python, "-m", "sgpud", "run", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "PYTHONPATH": SOURCE,
                "NOTIFY_SOCKET": str(notices),
                **environment,
            },
        )
        self._readers = [
            threading.Thread(target=target, name=target.__name__, daemon=True)
            for target in (self._read_log, self._read_notices)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def complaints(self) -> list[Line]:
        """What it should never have said."""
        return [line for line in self.log.items if line.complaint]

    def threads(self) -> list[str]:
        """Its threads, as the kernel counts them."""
        return [entry.name for entry in os.scandir(f"/proc/{self.pid}/task")]

    def descriptors(self) -> list[str]:
        """Its open descriptors."""
        return [entry.name for entry in os.scandir(f"/proc/{self.pid}/fd")]

    def said(self, text: str, since: int = 0, timeout: float | None = None) -> Line:
        """Wait for a line of the log that has this text in it."""
        return self.log.wait(lambda line: text in line.message, since, timeout)

    def ready(self, since: int = 0) -> None:
        """Wait for READY=1."""
        self.notices.wait(lambda notice: "READY" in notice, since)

    def status(self, wanted: Callable[[str], object], timeout: float | None = None) -> str:
        """Wait until the status line is such a one."""
        return self.notices.wait(
            lambda notice: "STATUS" in notice and wanted(notice["STATUS"]), 0, timeout
        )["STATUS"]

    def ask(self, verb: str, **arguments: str) -> dict[str, Any]:
        """Ask over the control socket."""
        return ask(self._control, verb, arguments, timeout=WITHIN)

    def ask_about(self, verb: str, gpu: str) -> dict[str, Any]:
        """The same, about one GPU."""
        return ask(self._control, verb, {"gpu": gpu}, timeout=WITHIN)

    def view(self) -> dict[str, Any]:
        """What `sgpud plan --json` shows of it."""
        seen: dict[str, Any] = self.ask("plan")["view"]
        return seen

    def send(self, number: signal.Signals) -> None:
        """Send a signal, and wait for nothing."""
        self._process.send_signal(number)

    def hang_up(self) -> None:
        """Send SIGHUP and wait until the reload is done, whatever came of it."""
        mark = self.notices.mark
        self.send(signal.SIGHUP)
        self.notices.wait(lambda notice: "RELOADING" in notice, mark)
        self.ready(mark)

    def wait(self, timeout: float = WITHIN) -> int:
        """Wait for its end; the exit status."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            said = "\n".join(map(str, self.log.items[-30:]))
            raise AssertionError(f"it did not end within {timeout} s; it said:\n{said}") from None
        self.ended = time.monotonic()
        self._readers[0].join(WITHIN)
        return status

    def end(self, how: signal.Signals = signal.SIGTERM) -> float:
        """Send a signal and wait for the end, which comes in time; the seconds that it took."""
        began = time.monotonic()
        self.send(how)
        assert self.wait(IN_TIME) == (-how if how is signal.SIGKILL else 0)
        return self.ended - began

    def close(self) -> None:
        """Kill it if it still runs, and read no more."""
        if self.running:
            self._process.kill()
        self._process.wait(WITHIN)
        self._socket.shutdown(socket.SHUT_RDWR)
        for reader in self._readers:
            reader.join(WITHIN)
        self._socket.close()

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for text in stream:
                self.log.add(_line(text.decode(errors="replace").rstrip("\n")))
        self.log.end()

    def _read_notices(self) -> None:
        while message := self._socket.recv(65536):
            pairs = (line.partition("=") for line in message.decode().splitlines())
            self.notices.add({name: value for name, _, value in pairs})
        self.notices.end()
